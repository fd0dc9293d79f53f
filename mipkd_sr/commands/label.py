"""Store a teacher's outputs as targets, so that students train on them without the teacher.

mipkd prepare PHOTOS --out datasets/photographs --scale 2 --store npy
mipkd label datasets/photographs --scale 2 --out datasets/photographs_labelled -opt bsrn.yml --weights bsrn_x2.pth
mipkd train -opt students/reparam

Half of a training's patches then have the photograph as their target and half the teacher's output: with an L1 loss,
over many steps, that is L1(S, HR) + L1(S, T), for the price of plain training. An interrupted run goes on where it
stopped when it is started again; what is there is compared with its checksum.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_import_argument, ended_by_sigterm
from mipkd_sr.commands.upscale import add_running_arguments, as_asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', type=Path, help='folder that mipkd prepare has made')
    parser.add_argument('--scale', type=int, required=True, choices=[2, 3, 4], help="the teacher's")
    parser.add_argument('--out', type=Path, required=True, help='folder for HR_xSCALE and LR_xSCALE')
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file that has the teacher as network_g')
    parser.add_argument('--weights', required=True, help="the teacher's checkpoint")
    add_running_arguments(parser)
    add_import_argument(parser)


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.api import load_student
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.deploy.labelling import label
    from mipkd_sr.deploy.upscaling import digest
    from mipkd_sr.runtime.long_work import told

    device = this_device()
    teacher = load_student(args.weights, args.opt).to(device)
    made_by = {'teacher': digest(teacher)}
    made_by |= {name: getattr(args, name) for name in ('self_ensemble', 'tile', 'overlap', 'precision')}
    count, work = label(as_asked(args, teacher, device), args.images, args.out, args.scale, device, made_by)
    with ended_by_sigterm():
        now = sum(told(work, count, args.out.name))
    print(f'{2 * count} pairs in {args.out}, {count} of them labelled: {now} now, {count - now} before')
    return 0
