"""A training step of each method, as ratios to KD's and to its own arithmetic.

mipkd benchmark step
mipkd benchmark step -opt mipkd/edsr_x4 --methods DUKD MiPKD     # for another pair; wants a GPU

The floor of KD is the teacher's forward and the student's forward and backward alone; a method's own floor is that
multiplied with how much more arithmetic the method needs. `host` is the time until the CPU has given a GPU all of a
step's work, `device` that in which the GPU works, `launches` the kernels, graphs and copies that are started. `first
steps` are those before, compilation included. Memory is that of the tensors alive at a time. Each line, and the JSON,
is written as it is known; what there is no time for is left out and named.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipkd_sr.commands.benchmark.options_of_run import DEMO, add_force, add_sizes, run_options
from mipkd_sr.commands.command_line import add_import_argument, at_least

if TYPE_CHECKING:
    from mipkd_sr.costs.comparing import StepCost

HEADER = ['', 'wall, ms (median ± IQR)', 'host, ms', 'device, ms', 'wall / device', 'launches', 'times KD (means)']
HEADER += ["arithmetic, times KD's floor", 'times own floor', 'peak memory, MiB', 'first steps, s']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-opt', default=DEMO, help=f'training options, for pair and patches; default: {DEMO}')
    add_import_argument(parser)
    add_force(parser)
    parser.add_argument('--methods', nargs='+', default=[], metavar='METHOD', help='default: all; KD is always needed')
    add_sizes(parser)
    parser.add_argument('--repeats', type=at_least(2), default=30, help='steps of each method, at most; default: 30')
    parser.add_argument('--minutes', type=float, default=3.5, help='that all of it may take; default: 3.5')
    parser.add_argument('--profile', action='store_true', help="also where a step's time goes")
    parser.add_argument('--json', type=Path, help='also write the figures to this file')


def run(args: argparse.Namespace) -> None:
    """Time a step of each method, beside KD's."""
    from mipkd_sr.costs.comparing import StepComparison, profile
    from mipkd_sr.costs.measuring import device_name, this_device
    from mipkd_sr.costs.methods import METHODS
    from mipkd_sr.evaluation.results import markdown_row, markdown_table
    from mipkd_sr.runtime.errors import OptionError
    from mipkd_sr.runtime.files import write_json

    if unknown := [name for name in args.methods if name not in METHODS]:
        raise OptionError('--methods', f"there is no method '{unknown[0]}'; there are: {', '.join(METHODS)}.")
    device = this_device()
    comparison = StepComparison(run_options(args), args.methods, device)
    where, (batch, _, _, side) = device_name(device), comparison.batch['lq'].shape
    steps: dict[str, dict[str, Any]] = {}
    print(markdown_table(HEADER, []), flush=True)
    for name, cost in comparison.measure(args.repeats, 60 * args.minutes):
        print(markdown_row([name, *_cells(cost)]), flush=True)
        steps[name] = cost._asdict()
        if args.json:
            write_json({'device': where, 'batch': batch, 'patch': side, 'steps': steps}, args.json)
        if args.profile:
            print(f'\n== {name}\n{profile(comparison.work[name], comparison.first, device)}')
    counts = sorted(own['steps'] for own in steps.values())
    print(f'\n{args.opt}, {batch} patches of {side} x {side}, {counts[0]} to {counts[-1]} steps of each, {where}.')
    if device.type == 'cpu':
        print('A CPU has no device time and launches nothing.')
    print('\n'.join(comparison.left_out))


def _cells(cost: 'StepCost') -> list[str]:
    """A method's line, but for its name."""
    device, launches = cost.device_seconds, cost.launches
    cells = [f'{1000 * cost.seconds:.1f} ± {1000 * cost.interquartile_range:.1f}', f'{1000 * cost.host_seconds:.1f}']
    cells += [f'{1000 * device:.1f}', f'{cost.seconds / device:.2f}'] if device else ['-', '-']
    cells.append('-' if launches is None else f'{launches:,}')
    ratios = (cost.mean_times_kd, cost.arithmetic_times_floor, cost.times_own_floor)
    cells += [f'{ratio:.2f}' for ratio in ratios]
    return [
        *cells,
        '-' if cost.peak_memory_mib is None else f'{cost.peak_memory_mib:,.0f}',
        f'{cost.first_seconds:.1f}',
    ]
