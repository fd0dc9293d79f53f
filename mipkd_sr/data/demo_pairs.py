"""The demo's pairs (x2), from photographs that scikit-image ships: some to train on, others held out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage

from mipkd_sr.data.images import read_image
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.runtime.errors import RunError

TRAIN = ('brick.png', 'coffee.png', 'coins.png', 'grass.png', 'gravel.png', 'motorcycle_left.png', 'rocket.jpg')
HELD_OUT = ('astronaut.png', 'camera.png', 'chelsea.png')
SCALE = 2
TILE = 96


def read_photographs(names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs from scikit-image's own folder (no download), as H x W x 3, BGR, 8 bits."""
    for name in names:
        file = Path(skimage.__file__).parent / 'data' / name
        try:
            yield file.stem, read_image(file)
        except ValueError:
            raise RunError(f'this scikit-image does not ship {file}; install 0.22 or later.') from None


def write_demo_pairs(folder: Path) -> tuple[int, int]:
    """Write the pairs to ``folder``/train and ``folder``/test.

    Returns:
        The number of training pairs, and of held-out ones.
    """
    pairs = write_pairs(read_photographs(TRAIN), folder / 'train', [SCALE], TILE)
    return pairs, write_pairs(read_photographs(HELD_OUT), folder / 'test', [SCALE])
