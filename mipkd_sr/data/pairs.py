"""Writing HR images and the LR images that MATLAB would make of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from mipkd_sr.data.imresize import imresize_uint8


def tiles(image: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut an image (H x W x C) into squares of ``size`` pixels that cover it; the last ones overlap their neighbours.

    Small files let a training run read a patch without decoding a whole photograph. An image smaller than ``size`` in
    one direction gives nothing.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        return
    for top in sorted({*range(0, height - size + 1, size), height - size}):
        for left in sorted({*range(0, width - size + 1, size), width - size}):
            yield image[top : top + size, left : left + size]


def write_pairs(
    images: Iterable[tuple[str, np.ndarray]], folder: Path, scales: Sequence[int], tile: int | None = None
) -> int:
    """Write HR images to ``folder``/HR and their LR images to ``folder``/LR_x2 (x3, x4), under the same names.

    Args:
        images: Names, and images as H x W x 3, BGR, 8 bits.
        folder: Where to write; files that are there already are written again.
        scales: Scales of the LR images. HR images are cropped so that each divides their sides.
        tile: Side of the squares that the images are cut into (see ``tiles``); whole images if None.

    Returns:
        Number of HR images written.
    """
    for sub in ('HR', *(f'LR_x{scale}' for scale in scales)):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    unit = math.lcm(*scales)
    count = 0
    for name, image in images:
        parts = (
            [(name, image)] if tile is None else [(f'{name}_{i:03}', part) for i, part in enumerate(tiles(image, tile))]
        )
        for part_name, part in parts:
            hr = part[: part.shape[0] // unit * unit, : part.shape[1] // unit * unit]
            _write(folder / 'HR' / f'{part_name}.png', hr)
            for scale in scales:
                _write(folder / f'LR_x{scale}' / f'{part_name}.png', imresize_uint8(hr, Fraction(1, scale)))
            count += 1
    return count


def _write(file: Path, image: np.ndarray) -> None:
    """Write an image under a passing name first, so that an interrupted run leaves no half image."""
    part = file.with_suffix('.part.png')
    if not cv2.imwrite(str(part), image):
        raise OSError(f'{file} cannot be written')
    part.replace(file)
