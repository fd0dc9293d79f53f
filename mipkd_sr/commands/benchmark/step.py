"""A training step of each method, as ratios to KD's and to its own arithmetic.

mipkd benchmark step
mipkd benchmark step -opt mipkd/edsr_x4 --methods DUKD MiPKD     # for another pair; wants a GPU

The floor of KD is the teacher's forward and the student's forward and backward alone; a method's own floor is that
multiplied with how much more arithmetic the method needs. Memory is that of the tensors alive at a time.
"""

import argparse
import json
from pathlib import Path

from mipkd_sr.commands.benchmark.options_of_run import DEMO, add_force, add_sizes, run_options
from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('-opt', default=DEMO, help=f'training options, for pair and patches; default: {DEMO}')
    add_import_argument(parser)
    add_force(parser)
    parser.add_argument('--methods', nargs='+', default=[], metavar='METHOD', help='default: all; KD is always needed')
    add_sizes(parser)
    parser.add_argument('--repeats', type=int, default=30, help='steps of each method')
    parser.add_argument('--profile', action='store_true', help="also where a step's time goes")
    parser.add_argument('--json', type=Path, help='also write the figures to this file')


def run(args: argparse.Namespace) -> None:
    """Time a step of each method, in turn."""
    from mipkd_sr.costs.comparing import StepComparison, batch_size_and_side, profile
    from mipkd_sr.costs.measuring import device_name, this_device
    from mipkd_sr.costs.methods import METHODS
    from mipkd_sr.evaluation.results import markdown_table
    from mipkd_sr.runtime.errors import OptionError

    if unknown := [name for name in args.methods if name not in METHODS]:
        raise OptionError('--methods', f"there is no method '{unknown[0]}'; there are: {', '.join(METHODS)}.")
    device = this_device()
    comparison = StepComparison(run_options(args), args.methods, device)
    costs = comparison.measure(args.repeats)
    rows = []
    for name, cost in costs.items():
        cells = [name, f'{1000 * cost.seconds:.1f} ± {1000 * cost.interquartile_range:.1f}']
        ratios = (cost.mean_times_kd, cost.arithmetic_times_floor, cost.times_own_floor)
        memory = '-' if cost.peak_memory_mib is None else f'{cost.peak_memory_mib:,.0f}'
        rows.append([*cells, *(f'{ratio:.2f}' for ratio in ratios), memory])
    header = ['', 'ms a step (median ± IQR)', 'times KD (means)', "arithmetic, times KD's floor", 'times own floor']
    print(markdown_table([*header, 'peak memory, MiB'], rows))
    where, (batch, side) = device_name(device), batch_size_and_side(comparison.batch)
    print(f'\n{args.opt}, {batch} patches of {side} x {side}, {args.repeats} steps of each in turn, {where}.')
    print('\n'.join(comparison.left_out))
    if args.json:
        steps = {name: cost._asdict() for name, cost in costs.items()}
        found = {'device': where, 'batch': batch, 'patch': side, 'steps': steps}
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    if args.profile:
        for name, take in comparison.work.items():
            print(f'\n== {name}\n{profile(take, comparison.first, device)}')
