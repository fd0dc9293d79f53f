"""The options of a training run that several measurements take."""

import argparse

from mipkd_sr.option_types import TrainingOptions

DEMO = 'demo/mipkd'


def add_force(parser: argparse.ArgumentParser) -> None:
    """The changes to the option file."""
    parser.add_argument('--force', nargs='+', default=[], metavar='KEY=VALUE', help="as training's --force_yml")


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The batch and the patch."""
    parser.add_argument('--batch', type=int, help='patches a step and process')
    parser.add_argument('--patch', type=int, help='side of the LR patches')


def run_options(args: argparse.Namespace) -> TrainingOptions:
    """The options of a training run, with the batch and patch that the command line asks for, on the GPU if any."""
    import torch

    from mipkd_sr.runs.run_options import load_options

    force = list(args.force)
    if args.batch:
        force.append(f'datasets:train:batch_size_per_gpu={args.batch}')
    opt = load_options(args.opt, True, force=force).training
    if args.patch:
        opt['datasets']['train']['gt_size'] = args.patch * opt['scale']
    opt['num_gpu'] = min(1, torch.cuda.device_count())
    return opt
