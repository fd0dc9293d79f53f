"""PSNR and SSIM as the super-resolution papers measure them: BasicSR's values, several times faster.

SSIM: Image Quality Assessment: From Error Visibility to Structural Similarity,
https://ieeexplore.ieee.org/document/1284395, with an 11 x 11 Gaussian window of standard deviation 1.5 and without
padding.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from typing import Any

import cv2
import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

LUMA = np.array([[24.966, 128.553, 65.481]]) / 255
"""Y of YCbCr (ITU-R BT.601, in [16, 235]) from B, G and R in [0, 255], without the 16 that is added."""
WINDOW = cv2.getGaussianKernel(11, 1.5)
STRIP = 64
"""Rows of SSIM that are computed at a time, so that they stay in the processor's cache."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luma(image: np.ndarray) -> np.ndarray:
    """The Y channel, H x W, float64, not rounded, as MATLAB's rgb2ycbcr defines it; grey images are taken as they
    are.
    """
    if image.ndim == 2:
        return image.astype(np.float64)
    return cv2.transform(image.astype(np.float64), LUMA) + 16.0


def _inside(image: np.ndarray, crop_border: int) -> np.ndarray:
    height, width = image.shape[:2]
    return image[crop_border : height - crop_border, crop_border : width - crop_border]


def _check(sr: np.ndarray, hr: np.ndarray, crop_border: int) -> None:
    if sr.shape != hr.shape:
        raise ValueError(f'the images are {sr.shape} and {hr.shape}; they must be of one size')
    if min(sr.shape[:2]) <= 2 * crop_border:
        raise ValueError(f'an image of {sr.shape[0]} x {sr.shape[1]} has nothing inside a border of {crop_border}')


def psnr(sr: np.ndarray, hr: np.ndarray, crop_border: int, test_y_channel: bool = False) -> float:
    """Peak signal-to-noise ratio, ``10 log10(255^2 / MSE)``.

    Args:
        sr: H x W x 3, BGR, or H x W, grey; 8 bits.
        hr: As ``sr``; None for a metric that needs none.
        crop_border: Pixels at each edge that are left out.
        test_y_channel: Whether to compare the Y channel alone; else all three together.

    Returns:
        dB; infinite for equal images.

    Raises:
        ValueError: If the images differ in size or nothing is left of them.
    """
    _check(sr, hr, crop_border)
    difference = cv2.subtract(_inside(sr, crop_border), _inside(hr, crop_border), dtype=cv2.CV_64F)
    if test_y_channel and sr.ndim == 3:
        difference = cv2.transform(difference, LUMA)  # Y is linear
    mse = float(np.vdot(difference, difference)) / difference.size
    return float('inf') if mse == 0 else 10 * float(np.log10(255.0**2 / mse))


def ssim(sr: np.ndarray, hr: np.ndarray, crop_border: int, test_y_channel: bool = False) -> float:
    """Structural similarity, in [-1, 1]; of three channels the mean. The arguments are those of ``psnr``.

    Raises:
        ValueError: If the images differ in size or are smaller than the window.
    """
    _check(sr, hr, crop_border)
    x, y = _inside(sr, crop_border), _inside(hr, crop_border)
    height, width = x.shape[0] - len(WINDOW) + 1, x.shape[1] - len(WINDOW) + 1
    if min(height, width) < 1:
        raise ValueError(f'an image of {x.shape[0]} x {x.shape[1]} is smaller than the window of {len(WINDOW)}')
    convert = luma if test_y_channel else methodcaller('astype', np.float64)

    def sum_of_strip(top: int) -> float:
        rows = slice(top, min(top + STRIP, height) + len(WINDOW) - 1)
        return _sum_of_similarities(convert(x[rows]), convert(y[rows]))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # OpenCV and NumPy compute side by side
        total = sum(pool.map(sum_of_strip, range(0, height, STRIP)))
    return total / (height * width * (x.shape[2] if x.ndim == 3 and not test_y_channel else 1))


def _blur(image: np.ndarray) -> np.ndarray:
    """The weighted means of all whole windows."""
    reach = len(WINDOW) // 2
    return cv2.sepFilter2D(image, cv2.CV_64F, WINDOW, WINDOW)[reach:-reach, reach:-reach]


def _sum_of_similarities(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of SSIM over all whole windows; in place where it can be, for the time goes into memory."""
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x * mean_x
    squares += mean_y * mean_y
    covariance = _blur(x * y)
    covariance -= product
    both = x * x
    both += y * y
    variances = _blur(both)  # of x plus of y: their sum is all that is needed
    variances -= squares
    similarity = (2 * product + C1) * (2 * covariance + C2)
    squares += C1
    variances += C2
    similarity /= squares * variances
    return float(similarity.sum())


FAST: dict[str, Callable[..., float]] = {'calculate_psnr': psnr, 'calculate_ssim': ssim}
"""BasicSR's names for what is here."""
ARGUMENTS = {'crop_border', 'test_y_channel'}


def least_side(opt: Mapping[str, Any]) -> int:
    """The least height and width, in HR pixels, of images that a metric of the option file can measure.

    Args:
        opt: ``type`` and arguments of a registered metric; 1 where nothing is known of it.
    """
    inside = {'calculate_psnr': 1, 'calculate_ssim': len(WINDOW)}.get(opt['type'])
    return 1 if inside is None else 2 * opt.get('crop_border', 0) + inside


def needs_hr(opt: Mapping[str, Any]) -> bool:
    """Whether a metric of the option file compares with an HR image; NIQE does not."""
    return 'img2' in inspect.signature(METRIC_REGISTRY.get(opt['type'])).parameters


def measure(opt: Mapping[str, Any], sr: np.ndarray, hr: np.ndarray | None) -> float:
    """A metric of the option file: by the functions here where they are the same, else by BasicSR's registry.

    Args:
        opt: ``type`` and arguments of a registered metric.
        sr: H x W x 3, BGR, or, for the metrics here, H x W, grey; 8 bits.
        hr: As ``sr``.
    """
    arguments = {name: value for name, value in opt.items() if name not in ('type', 'better', 'input_order')}
    if opt['type'] in FAST and arguments.keys() <= ARGUMENTS and opt.get('input_order', 'HWC') == 'HWC':
        return FAST[opt['type']](sr, hr, **arguments)
    # which values are better is for the record, not for the function
    own = {name: value for name, value in opt.items() if name != 'better'}
    return float(calculate_metric({'img': sr, 'img2': hr}, own))
