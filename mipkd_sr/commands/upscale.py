"""Upscale your own images with a trained student: one that comes with the package, or your own.

mipkd upscale PHOTO [MORE, or FOLDERS ...] --out FOLDER --scale 2 [--size good]
mipkd upscale PHOTOS --out FOLDER --run demo_mipkd    # the student of a run of yours
mipkd upscale PHOTOS --out FOLDER -opt my_options.yml --weights student.pth

Writes NAME.png for each image, turned upright, with its bits, transparency, colour profile, resolution and capture
time. A file that is there stays; what this command made of the same image with the same student is not made again.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mipkd_sr.commands.command_line import (
    add_student_arguments,
    at_least,
    ended_by_sigterm,
    report_failures,
    student_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mipkd_sr.evaluation.inference import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument('images', nargs='+', type=Path, help='images, or folders of them')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    add_student_arguments(parser, '--size')
    add_running_arguments(parser)


def add_running_arguments(parser: argparse.ArgumentParser) -> None:
    """How a network is run; see ``as_asked``."""
    parser.add_argument('--tile', type=at_least(0), default=512, help='larger images are run in such squares; 0: whole')
    parser.add_argument('--overlap', type=at_least(0), default=64, help='surroundings of a square, in pixels')
    parser.add_argument('--self-ensemble', action='store_true', help='mean over 8 turned copies: a little better')
    parser.add_argument(
        '--precision',
        choices=['auto', 'single', 'bf16'],
        default='auto',
        help='auto: bf16 where the processor has it and photographs come out within 60 dB of single precision',
    )


def as_asked(args: argparse.Namespace, net: 'nn.Module', device: 'torch.device') -> 'Network':
    """The network, on ``device``, as the arguments say that it is to be run."""
    import torch

    from mipkd_sr.deploy.upscaling import has_fast_bf16, is_close_in_bf16
    from mipkd_sr.evaluation.inference import prepare_network

    net.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU
    bf16 = args.precision == 'bf16'
    if args.precision == 'auto' and device.type == 'cpu' and has_fast_bf16():
        bf16 = is_close_in_bf16(net)
    return prepare_network(net, args.self_ensemble, args.tile, args.overlap, bf16)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.data.images import listing
    from mipkd_sr.deploy.shapes import channels_of
    from mipkd_sr.deploy.upscaling import digest, find_images, upscale_files
    from mipkd_sr.runtime.files import remove_parts
    from mipkd_sr.runtime.long_work import told

    device = this_device()
    student = student_of(args).to(device)
    made_by = {'student': digest(student), 'self_ensemble': args.self_ensemble}
    net = as_asked(args, student, device)
    targets, passed_over = find_images(args.images, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    remove_parts(args.out, older_than=3600)
    with ended_by_sigterm():
        work = upscale_files(net, targets, device, made_by, channels_of(student))
        outcomes = list(told(work, len(targets), args.out.name))
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    there = sum(outcome.was_there for outcome in outcomes)
    print(
        f'{len(outcomes) - there - len(failures)} image(s) written to {args.out}; {there} were there already; '
        f'{len(failures)} failed; {len(passed_over)} file(s) passed over'
    )
    notes = [(note, outcome.file) for outcome in outcomes for note in outcome.notes]
    print(listing(notes + [('passed over, no image by its ending', file) for file in passed_over]), end='')
    return report_failures(failures)
