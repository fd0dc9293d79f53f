"""How many training patches a second can be read, from PNG files and from arrays."""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from basicsr.data.paired_image_dataset import PairedImageDataset

from mipkd_sr.data import PairedPatchDataset
from mipkd_sr.data.pairs import STORES, read_image, write_pairs

PHOTOGRAPHS = ('astronaut.png', 'coffee.png', 'chelsea.png', 'rocket.jpg')
WIDTH, HEIGHT = 2040, 1356


class ReadingRate(NamedTuple):
    """How a data set reads: its class, how its images are kept, patches a second of one core, MiB on the disk."""

    dataset: str
    store: str
    patches_per_second: float
    mib: float


def large_photograph(name: str) -> np.ndarray:
    """A photograph that scikit-image ships, enlarged to 1356 x 2040 x 3 (BGR, 8 bits)."""
    return cv2.resize(read_image(Path(skimage.__file__).parent / 'data' / name), (WIDTH, HEIGHT))


def measure_reading(patches: int) -> list[ReadingRate]:
    """Time the reading of patches of 48 x 48 LR pixels at x2, in this one process, from images of DIV2K's size.

    The images are enlarged photographs, made as rough as a photograph of that size is by a little noise.

    Args:
        patches: Patches to read from arrays; a twentieth of that from PNG files.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in PHOTOGRAPHS:
            image = large_photograph(name)
            image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).round().astype(np.uint8)
            for store in STORES:
                write_pairs([(name[:-4], image)], Path(folder, store), [2], store=store)
        return [
            _measure(PairedImageDataset, 'png', Path(folder, 'png'), max(1, patches // 20)),
            _measure(PairedPatchDataset, 'npy', Path(folder, 'npy'), patches),
        ]


def _measure(kind: type[PairedImageDataset], store: str, folder: Path, count: int) -> ReadingRate:
    roots = {'dataroot_gt': f'{folder}/HR', 'dataroot_lq': f'{folder}/LR_x2'}
    opt = {**roots, 'io_backend': {'type': 'disk'}, 'scale': 2, 'phase': 'train', 'gt_size': 96}
    dataset = kind({**opt, 'use_hflip': True, 'use_rot': True})
    for index in range(len(dataset)):
        dataset[index]
    start = time.process_time()
    for index in range(count):
        dataset[index % len(dataset)]
    rate = count / (time.process_time() - start)
    size = sum(file.stat().st_size for file in folder.rglob('*.*')) / 2**20
    return ReadingRate(kind.__name__, store, rate, size)
