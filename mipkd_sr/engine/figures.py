"""Pictures of results."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use('Agg')  # files only; no display is needed
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle


def comparison_figure(
    hr: np.ndarray,
    crops_of: Mapping[str, np.ndarray],
    captions: Mapping[str, str],
    crop: tuple[int, int, int],
    file: Path,
) -> None:
    """Draw the HR image with a box, and beside it what is in the box, from the HR image and from each network.

    Args:
        hr: HR image, H x W x 3, BGR, 8 bits.
        crops_of: Each network's SR image, by name, as ``hr``.
        captions: A line under each name.
        crop: Top, left and side of the box, in HR pixels.
        file: The picture, PNG or PDF by its ending.

    Raises:
        ValueError: If the box is not inside the image.
    """
    top, left, side = crop
    if min(top, left) < 0 or side < 1 or top + side > hr.shape[0] or left + side > hr.shape[1]:
        raise ValueError(f'the box {list(crop)} is not inside an image of {hr.shape[0]} x {hr.shape[1]} pixels')
    panels = {'HR': hr, **crops_of}
    columns = (len(panels) + 1) // 2
    figure = plt.figure(figsize=(2.4 * (columns + 2), 5.4), layout='constrained')
    grid = figure.add_gridspec(2, columns + 2)
    whole = figure.add_subplot(grid[:, :2])
    whole.imshow(_rgb(hr))
    whole.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor='red', linewidth=1.5))
    whole.set_axis_off()
    for number, (name, image) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[number // columns, 2 + number % columns])
        axes.imshow(_rgb(image[top : top + side, left : left + side]), interpolation='nearest')
        axes.set_title(f'{name}\n{captions.get(name, "")}', fontsize=9)
        axes.set_axis_off()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
