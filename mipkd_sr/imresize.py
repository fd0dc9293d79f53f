"""MATLAB's ``imresize`` with its bicubic kernel, for batches, on any device, and with a gradient.

Every published LR test image was made with it: antialiased when it shrinks, edges mirrored.
"""

from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np
import torch
from torch import Tensor

KERNEL_WIDTH = 4


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


@lru_cache(maxsize=64)
def _weights(size: int, scale: Fraction) -> Tensor:
    """The matrix (ceil(size * scale) x size, float64) that resizes one dimension of length ``size``."""
    out_size = ceil(size * scale)
    factor = float(scale)
    squeeze = min(factor, 1.0)  # antialiasing: a wider kernel when shrinking
    centre = (torch.arange(out_size, dtype=torch.float64) + 0.5) / factor - 0.5
    reach = KERNEL_WIDTH / squeeze / 2
    taps = torch.arange(floor(-reach), ceil(reach) + 1)
    position = centre.floor()[:, None] + taps
    weight = _cubic((centre[:, None] - position) * squeeze)
    weight /= weight.sum(1, keepdim=True)
    period = position.long() % (2 * size)  # mirrored edges, the edge pixel repeated
    pixel = torch.where(period < size, period, 2 * size - 1 - period)
    return torch.zeros(out_size, size, dtype=torch.float64).scatter_add_(1, pixel, weight)


@lru_cache(maxsize=64)
def _weights_on(size: int, scale: Fraction, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``_weights`` on a device, kept, so that a training step copies nothing from the host."""
    return _weights(size, scale).to(device, dtype)


def imresize(image: Tensor, scale: float | Fraction) -> Tensor:
    """Resize images as MATLAB's ``imresize(image, scale)`` does, without rounding.

    Args:
        image: ... x H x W, floating point, any value range.
        scale: Factor; below 1 it shrinks. 1/3 is meant exactly when it is given as ``Fraction(1, 3)`` or ``1 / 3``.

    Returns:
        ... x ceil(H * scale) x ceil(W * scale); bicubic weights can leave the input's range by a little.
    """
    exact = Fraction(scale).limit_denominator(1000)
    rows = _weights_on(image.shape[-2], exact, image.device, image.dtype)
    columns = _weights_on(image.shape[-1], exact, image.device, image.dtype)
    with _own_precision(image.device.type):
        return rows @ image @ columns.T


def _own_precision(device_type: str) -> AbstractContextManager[object]:
    """Images are data: in mixed precision, too, they are resized in their own type."""
    if not torch.amp.is_autocast_available(device_type):  # the meta device has none
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def imresize_uint8(image: np.ndarray, scale: float | Fraction) -> np.ndarray:
    """Resize an 8-bit image as MATLAB does: rounded to 8 bits after the vertical pass, and again after the horizontal.

    Without the rounding between the passes a tenth of the pixels differ from the published LR images by one level.

    Args:
        image: H x W or H x W x C, uint8.
        scale: Factor; below 1 it shrinks.

    Returns:
        ceil(H * scale) x ceil(W * scale) (x C), uint8.
    """
    exact = Fraction(scale).limit_denominator(1000)
    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1).to(torch.float64)
    tall = _round_to_uint8(_weights(image.shape[0], exact) @ planes)
    done = _round_to_uint8(tall @ _weights(image.shape[1], exact).T)
    return done.permute(1, 2, 0).to(torch.uint8).numpy().reshape(*done.shape[1:], *image.shape[2:])


def _round_to_uint8(values: Tensor) -> Tensor:
    """Round halves up, as MATLAB rounds, and clip; still floating point. The sums are exact to about 1e-12."""
    return torch.floor(values + 0.5 + 1e-9).clamp(0, 255)
