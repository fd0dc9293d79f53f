"""Peak memory of FAKD's affinity loss for feature maps of 48, 96 and 192 pixels.

mipkd benchmark fakd
"""

import argparse

from mipkd_sr.commands.benchmark.own_process import measure_apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The measurement takes nothing."""


def run(args: argparse.Namespace) -> None:
    """Measure, each in a process of its own, the memory that the loss and its gradient need above their inputs."""
    from mipkd_sr.evaluation.tables import markdown_table

    rows = []
    for size in (48, 96, 192):
        cells = [f'{size} x {size}']
        for way in ('pieces', 'whole'):
            found, failure = measure_apart(['fakd-once', way, str(size)])
            cells.append(found or failure)
        rows.append(cells)
    print('One image, 64 channels, loss and gradient on the CPU: peak memory above the inputs, MiB')
    print(markdown_table(['feature map', 'in pieces', 'whole matrices'], rows))


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    """What one measurement takes."""
    parser.add_argument('way', choices=['pieces', 'whole'])
    parser.add_argument('size', type=int)


def run_once(args: argparse.Namespace) -> None:
    """One measurement; prints MiB."""
    from mipkd_sr.costs.fakd_memory import peak_of_affinity

    print(f'{peak_of_affinity(args.way, args.size):,.0f}')
