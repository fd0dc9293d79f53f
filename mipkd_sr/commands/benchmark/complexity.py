"""Parameters, multiply-adds, speed and memory of the networks of a test's option file.

mipkd benchmark complexity -opt papers
"""

import argparse
from typing import Any

from mipkd_sr.commands.benchmark.own_process import measure_apart
from mipkd_sr.commands.command_line import add_import_argument

SCALE, SIDE = 4, 256
"""Of MiPKD's Table 1: the scale, and the side of the LR image."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-opt', required=True, help="option file of a test, or a shipped recipe's name")
    add_import_argument(parser)
    parser.add_argument('--size', type=int, default=256, help='side of the LR image')
    parser.add_argument('--repeats', type=int, default=3, help='runs to take the median of; 0 to count alone')


def networks_of(file: str) -> dict[str, Any]:
    """The networks of a test's option file, by name; its data and checkpoints need not be there."""
    from mipkd_sr.runs.run_options import load_options
    from mipkd_sr.runtime.errors import OptionError

    networks = load_options(file, False).data.get('networks')
    if not networks:
        raise OptionError('networks', f'is missing in {file}; give the option file of a test of several networks.')
    return networks


def run(args: argparse.Namespace) -> None:
    """Count, and run each network in a process of its own; lines are printed as there are any."""
    from mipkd_sr.archs import build_network
    from mipkd_sr.costs.measuring import device_name, this_device
    from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters
    from mipkd_sr.evaluation.published import read_published
    from mipkd_sr.evaluation.results import markdown_row, markdown_table

    networks, costs = networks_of(args.opt), read_published()
    asked = ['--import', *args.imports] if args.imports else []
    header = ['network', 'parameters, M', '(published)', f'multiply-adds of {args.size} x {args.size} LR pixels, G']
    header += ['(published)']
    header += [f'images a second ({device_name(this_device())})', 'peak memory, MiB'] if args.repeats else []
    print(markdown_table(header, []), flush=True)
    counts: dict[str, tuple[int, int]] = {}
    for name, entry in networks.items():
        options = entry['network']
        if str(options) not in counts:
            net = build_network(options)
            counts[str(options)] = count_parameters(net), count_multiply_adds(net, args.size)
        published = costs.get(f'{name.partition(",")[0]}, costs', {}) if args.size == SIDE else {}
        theirs = published.get('costs', {}) if options.get('upscale') == SCALE else {}
        cells = [name]
        for key, unit, own in zip(('parameters', 'multiply_adds'), (1e6, 1e9), counts[str(options)], strict=True):
            cells += [f'{own / unit:.2f}', f'{theirs[key] / unit:.2f}' if key in theirs else '-']
        if args.repeats:
            sizes = ['--size', str(args.size), '--repeats', str(args.repeats)]
            measured, failure = measure_apart(['complexity-once', '-opt', args.opt, '--network', name, *sizes, *asked])
            cells += measured.split() if measured else [failure, '-']
        print(markdown_row(cells), flush=True)
    print(
        f'\nFor one LR image of {args.size} x {args.size} pixels, in single precision. Published: MiPKD, Table 1, x4.'
    )


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument('--network', required=True, help='its name')


def run_once(args: argparse.Namespace) -> None:
    """One measurement; prints images a second and MiB."""
    from mipkd_sr.archs import build_network
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.evaluation.complexity import measure_speed

    net = build_network(networks_of(args.opt)[args.network]['network'])
    rate, memory = measure_speed(net, args.size, this_device(), args.repeats)
    print(f'{rate:.3g} {memory:,.0f}')
