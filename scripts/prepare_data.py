"""Make training pairs from folders of photographs: HR images, and LR images as MATLAB's bicubic imresize makes them.

python scripts/prepare_data.py PHOTOS [MORE_PHOTOS ...] --out datasets/mine --scale 2 3 4 --tile 192
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.data.pairs import write_pairs

SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff'}


def read_folder(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every image of a folder, with its name, as H x W x 3, BGR, 8 bits."""
    for file in tqdm(sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES), desc=folder.name):
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            sys.exit(f'error: {file} cannot be read as an image; remove it or replace it')
        yield f'{folder.parent.name}_{file.stem}', image


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folders', nargs='+', type=Path, help='folders of photographs')
    parser.add_argument('--out', type=Path, required=True, help='folder for HR, LR_x2, ...')
    parser.add_argument('--scale', type=int, nargs='+', default=[2, 3, 4], choices=[2, 3, 4])
    parser.add_argument(
        '--tile', type=int, help='side of the sub-images, a multiple of every scale; default: whole images'
    )
    args = parser.parse_args()
    for folder in args.folders:
        if not folder.is_dir():
            sys.exit(f'error: {folder} is not a folder')
    count = sum(write_pairs(read_folder(folder), args.out, args.scale, args.tile) for folder in args.folders)
    print(f'{count} pairs in {args.out}')


if __name__ == '__main__':
    main()
