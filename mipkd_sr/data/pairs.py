"""Writing HR images and the LR images that MATLAB would make of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mipkd_sr.data.images import write_image
from mipkd_sr.imresize import imresize_uint8

STORES = ('png', 'npy')
"""How images are kept: PNG, or NumPy's arrays, of which a patch can be read without reading the rest."""

ImageSink = Callable[[Path, np.ndarray], None]


def tiles(image: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut an image (H x W x C) into squares of ``size`` pixels that cover it; the last ones overlap their neighbours.

    An image smaller than ``size`` in one direction gives nothing.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        return
    for top in sorted({*range(0, height - size + 1, size), height - size}):
        for left in sorted({*range(0, width - size + 1, size), width - size}):
            yield image[top : top + size, left : left + size]


def tile_name(name: str, number: int) -> str:
    """The name of a tile of the image ``name``."""
    return f'{name}_{number:03}'


def write_pairs(
    images: Iterable[tuple[str, np.ndarray]],
    folder: Path,
    scales: Sequence[int],
    tile: int | None = None,
    store: str = 'png',
    sink: ImageSink = write_image,
) -> int:
    """Write HR images to ``folder``/HR and their LR images to ``folder``/LR_x2 (x3, x4), under the same names.

    Args:
        images: Names, and images as H x W x 3, BGR, 8 bits.
        folder: Where to write; files that are there already are written again.
        scales: Scales of the LR images.
        tile: Side of the squares that the images are cut into (see ``tiles``), which every scale divides. With None
            HR images stay whole, and an LR image is made of the largest part that its scale divides, as test sets are.
        store: One of ``STORES``.
        sink: What is done with each file and image: they are written, or, with ``check_image``, compared.

    Returns:
        Number of HR images.
    """
    for sub in ('HR', *(f'LR_x{scale}' for scale in scales)):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    count = 0
    for name, image in images:
        parts = [(name, image)] if tile is None else [(tile_name(name, i), t) for i, t in enumerate(tiles(image, tile))]
        for part_name, hr in parts:
            sink(folder / 'HR' / f'{part_name}.{store}', hr)
            for scale in scales:
                divisible = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
                lr = imresize_uint8(divisible, Fraction(1, scale))
                sink(folder / f'LR_x{scale}' / f'{part_name}.{store}', lr)
            count += 1
    return count
