"""Upscale your own images with a trained student.

    python scripts/upscale.py PHOTO [MORE, or FOLDERS ...] --out FOLDER \\
        -opt experiments/demo_mipkd/mipkd.yml --weights experiments/demo_mipkd/models/net_g_best.pth

Writes NAME.png for each image. What is there already stays and is not computed again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.data.pairs import IMAGE_SUFFIXES
from mipkd_sr.deploy.student import load_student
from mipkd_sr.deploy.upscaling import read_any, upscale
from mipkd_sr.evaluation.inference import prepare_network
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.runtime.files import written_whole


def find_images(places: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The images, and the file that each becomes.

    Raises:
        SystemExit: With one sentence, if there is none, or two would become the same file.
    """
    found: dict[Path, Path] = {}
    for place in places:
        files = [place]
        if place.is_dir():
            files = sorted(file for file in place.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif not place.is_file():
            sys.exit(f'error: there is no {place}')
        for file in files:
            target = out / f'{file.stem}.png'
            if target in found:
                sys.exit(f'error: {found[target]} and {file} would both become {target}; give them apart')
            found[target] = file
    if not found:
        sys.exit(f'error: no image in {", ".join(map(str, places))}')
    return {file: target for target, file in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', type=Path, help='images, or folders of them')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('-opt', required=True, help='option file that has the student as network_g')
    parser.add_argument('--weights', required=True, help="the student's checkpoint")
    parser.add_argument('--tile', type=int, default=512, help='larger images are computed in such squares; 0: whole')
    parser.add_argument('--overlap', type=int, default=64, help='surroundings of a square, in pixels')
    parser.add_argument('--self-ensemble', action='store_true', help='mean over 8 turned copies: a little better')
    args = parser.parse_args(argv)
    try:
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        student = load_student(args.opt, args.weights).to(device)
        net = prepare_network(student, args.self_ensemble, args.tile, args.overlap)
        images = find_images(args.images, args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        waiting = {file: target for file, target in images.items() if not target.exists()}
        for file, target in tqdm(waiting.items(), unit='image'):
            content = cv2.imencode('.png', upscale(net, read_any(file), device))[1]
            with written_whole(target) as part:
                part.write_bytes(content.tobytes())
    except (OptionError, RunError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{len(waiting)} image(s) written to {args.out}; {len(images) - len(waiting)} were there already')


if __name__ == '__main__':
    main()
