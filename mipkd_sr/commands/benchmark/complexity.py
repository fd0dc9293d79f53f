"""Parameters, multiply-adds, speed and memory of the networks of a test's option file.

mipkd benchmark complexity -opt papers
"""

import argparse
from typing import Any

from mipkd_sr.commands.benchmark.own_process import measure_apart
from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('-opt', required=True, help="option file of a test, or a shipped recipe's name")
    add_import_argument(parser)
    parser.add_argument('--size', type=int, default=256, help='side of the LR image')
    parser.add_argument('--repeats', type=int, default=3, help='runs to take the median of; 0 to count alone')


def networks_of(file: str) -> dict[str, Any]:
    """The networks of a test's option file, by name; its data and checkpoints need not be there.

    Raises:
        OptionError: If it names none.
    """
    from mipkd_sr.runs.loading import load_options
    from mipkd_sr.runtime.errors import OptionError

    networks = load_options(file, False).data.get('networks')
    if not networks:
        raise OptionError('networks', f'is missing in {file}; give the option file of a test of several networks.')
    return networks


def run(args: argparse.Namespace) -> None:
    """Count, and run each network in a process of its own."""
    from mipkd_sr.archs import build_network
    from mipkd_sr.costs.measuring import device_name, this_device
    from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters
    from mipkd_sr.evaluation.tables import markdown_table

    asked = ['--import', *args.imports] if args.imports else []
    header = ['network', 'parameters, M', 'multiply-adds, G']
    header += [f'images a second ({device_name(this_device())})', 'peak memory, MiB'] if args.repeats else []
    print(markdown_table(header, []), flush=True)
    for name, entry in networks_of(args.opt).items():
        net = build_network(entry['network'])
        cells = [name, f'{count_parameters(net) / 1e6:.3f}', f'{count_multiply_adds(net, args.size) / 1e9:.2f}']
        if args.repeats:
            sizes = ['--size', str(args.size), '--repeats', str(args.repeats)]
            found, failure = measure_apart(['complexity-once', '-opt', args.opt, '--network', name, *sizes, *asked])
            cells += found.split() if found else [failure, '-']
        print(f'| {" | ".join(cells)} |', flush=True)
    print(f'\nFor one LR image of {args.size} x {args.size} pixels, in single precision.')


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    """What one measurement takes."""
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
