"""What hours and memory a recipe is expected to take on a kind of GPU.

mipkd benchmark plan -opt mipkd/edsr_x4 --gpu V100 --gpus 4
"""

import argparse

from mipkd_sr.commands.benchmark.options_of_run import add_force, add_sizes, run_options
from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-opt', required=True, help="training options: the recipe's file or name")
    add_import_argument(parser)
    add_force(parser)
    add_sizes(parser)
    parser.add_argument('--gpu', help='a kind of GPU, such as V100; or give --tflops and --bandwidth')
    parser.add_argument('--tflops', type=float, default=10.0, help='10^12 operations a second')
    parser.add_argument('--bandwidth', type=float, default=500.0, help='GB a second')
    parser.add_argument('--gpus', type=int, default=1, help='how many')
    parser.add_argument('--utilisation', type=float, default=0.5, help='part of the roofline that is reached')


def run(args: argparse.Namespace) -> None:
    """Plan a step of scratch, KD, DUKD, MiPKD, and MiPKD + DUKD."""
    from mipkd_sr.costs.planner import GPUS, plan_step
    from mipkd_sr.data import lq_patch_size
    from mipkd_sr.evaluation.results import markdown_table
    from mipkd_sr.runtime.errors import OptionError

    if args.gpu and args.gpu not in GPUS:
        raise OptionError('--gpu', f"'{args.gpu}' is not known; known are: {', '.join(GPUS)}.")
    opt = run_options(args)
    flops, bandwidth, memory = GPUS[args.gpu] if args.gpu else (1e12 * args.tflops, 1e9 * args.bandwidth, 0)
    total, rows = opt['train']['total_iter'], []
    for method in ('scratch', 'KD', 'DUKD', 'MiPKD', 'MiPKD + DUKD'):
        try:
            expected = plan_step(opt, method, flops, bandwidth, utilisation=args.utilisation)
        except OptionError as error:
            print(f'{method} is left out: {error.message}')
            continue
        cells = [method, f'{expected.seconds:.3f}', f'{total * expected.seconds / 3600:,.1f}']
        rows.append([*cells, f'{expected.memory / 2**30:.1f}'])
    print(markdown_table(['method', 's a step', 'hours', 'GiB a GPU'], rows))
    batch, patch = opt['datasets']['train']['batch_size_per_gpu'], lq_patch_size(opt)
    where = args.gpu or f'{args.tflops} TFLOP/s, {args.bandwidth} GB/s'
    print(
        f'\n{total:,} steps of {batch} patches of {patch} x {patch} on each of {args.gpus} x {where}'
        f'{f" ({memory} GB)" if memory else ""}, {args.utilisation:.0%} of its roofline in fp32; '
        f'{args.gpus * batch} patches a step in all. The gradients of the student, {args.gpus} x, are sent meanwhile.'
    )
