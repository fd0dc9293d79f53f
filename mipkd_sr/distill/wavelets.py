"""Haar's wavelets: an image as bands of its frequencies."""

import torch
from torch import Tensor


def haar_bands(images: Tensor, levels: int) -> list[Tensor]:
    """Take images apart into Haar's orthonormal bands.

    A level takes each square of four pixels ``a b / c d`` to ``(a+b+c+d)/2`` (low) and ``(a-b+c-d)/2``,
    ``(a+b-c-d)/2``, ``(a-b-c+d)/2`` (high: left from right, top from bottom, diagonal); the next one does so with the
    low band.

    Args:
        images: B x C x H x W; ``2 ** levels`` divides H and W.
        levels: How many levels.

    Returns:
        The high bands of each level, from the finest on, B x C x 3 x H/2^l x W/2^l; then the last low band,
        B x C x H/2^levels x W/2^levels.
    """
    bands, low = [], images
    for _ in range(levels):
        a, b = low[..., ::2, ::2], low[..., ::2, 1::2]
        c, d = low[..., 1::2, ::2], low[..., 1::2, 1::2]
        bands.append(torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], 2) / 2)
        low = (a + b + c + d) / 2
    return [*bands, low]
