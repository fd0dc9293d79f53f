"""Upscale your own images with a trained student: one that comes with the package, or your own.

mipkd upscale PHOTO [MORE, or FOLDERS ...] --out FOLDER --scale 2
mipkd upscale PHOTOS --out FOLDER \\
    -opt experiments/demo_mipkd/mipkd.yml --weights experiments/demo_mipkd/models/net_g_best.pth

Writes NAME.png for each image. What is there already stays and is not computed again.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_student_arguments, at_least, student_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument('images', nargs='+', type=Path, help='images, or folders of them')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    add_student_arguments(parser)
    parser.add_argument('--tile', type=at_least(0), default=512, help='larger images are run in such squares; 0: whole')
    parser.add_argument('--overlap', type=at_least(0), default=64, help='surroundings of a square, in pixels')
    parser.add_argument('--self-ensemble', action='store_true', help='mean over 8 turned copies: a little better')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import torch
    from tqdm import tqdm

    from mipkd_sr.deploy.upscaling import find_images, upscale_file
    from mipkd_sr.evaluation.inference import prepare_network

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    student = student_of(args).to(device)
    student.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU
    net = prepare_network(student, args.self_ensemble, args.tile, args.overlap)
    images = find_images(args.images, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    waiting = {file: target for file, target in images.items() if not target.exists()}
    for file, target in tqdm(waiting.items(), unit='image'):
        upscale_file(net, file, target, device)
    print(f'{len(waiting)} image(s) written to {args.out}; {len(images) - len(waiting)} were there already')
    return 0
