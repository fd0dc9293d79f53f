"""Make the demo's pairs (x2) from photographs that scikit-image ships: some to train on, others held out.

python scripts/prepare_demo_data.py
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.data.pairs import read_image, write_pairs

TRAIN = ('brick.png', 'coffee.png', 'coins.png', 'grass.png', 'gravel.png', 'motorcycle_left.png', 'rocket.jpg')
HELD_OUT = ('astronaut.png', 'camera.png', 'chelsea.png')
SCALE = 2
ROOT = Path(__file__).resolve().parents[1]
TILE = 96


def read_photographs(names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs from scikit-image's own folder (no download), as H x W x 3, BGR, 8 bits."""
    for name in names:
        file = Path(skimage.__file__).parent / 'data' / name
        try:
            yield file.stem, read_image(file)
        except ValueError:
            sys.exit(f'error: this scikit-image does not ship {file}; install 0.22 or later')


def main(root: Path = ROOT) -> None:
    """Write the pairs to datasets/demo under ``root``."""
    folder = root / 'datasets' / 'demo'
    pairs = write_pairs(read_photographs(TRAIN), folder / 'train', [SCALE], TILE)
    photographs = write_pairs(read_photographs(HELD_OUT), folder / 'test', [SCALE])
    print(f'Demo data in {folder}: {pairs} training pairs from {len(TRAIN)} photographs, {photographs} held out')


if __name__ == '__main__':
    main()
