"""A teacher's forward in other arithmetic: time, and how far its output moves.

mipkd benchmark teacher -opt demo/mipkd
"""

import argparse

from mipkd_sr.commands.benchmark.options_of_run import DEMO, add_force
from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('-opt', default=DEMO, help=f'training options: teacher and images; default: {DEMO}')
    add_import_argument(parser)
    add_force(parser)


def run(args: argparse.Namespace) -> None:
    """Run the teacher on the validation images in each arithmetic."""
    from mipkd_sr.archs import build_network
    from mipkd_sr.archs.weights import load_weights
    from mipkd_sr.costs.measuring import device_name, this_device
    from mipkd_sr.costs.teacher_arithmetic import measure_teacher
    from mipkd_sr.data import build_dataset
    from mipkd_sr.data.stream import single_images
    from mipkd_sr.evaluation.tables import markdown_table
    from mipkd_sr.options.loading import load_options, missing_paths
    from mipkd_sr.runtime.errors import OptionError

    options = load_options(args.opt, True, force=args.force)
    opt, device = options.data, this_device()
    with options.explaining():
        if missing := missing_paths(opt):
            raise missing[0]
        if 'type' not in (opt.get('network_t') or {}):
            raise OptionError('network_t', 'must be one network: the teacher whose arithmetic is measured.')
        net = build_network(opt['network_t'])
        load_weights(net, opt['path']['pretrain_network_t'], opt['path']['param_key_t'])
        lqs = [sample['lq'].to(device) for sample in single_images(build_dataset(options.training, 'val'))]
    rows = []
    for cost in measure_teacher(net, lqs, device):
        time = '-' if cost.seconds is None else f'{1000 * cost.seconds:.0f}'
        rows.append([cost.arithmetic, time, '-' if cost.psnr is None else f'{cost.psnr:.1f}'])
    print(markdown_table(['arithmetic of the teacher', 'ms', "PSNR to fp32's output, dB"], rows))
    print(f'\n{args.opt}, {len(lqs)} images, {device_name(device)}. Rounding an image to 8 bits leaves 58.9 dB.')
