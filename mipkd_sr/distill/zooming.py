"""DUKD's upcycled inputs (https://arxiv.org/abs/2309.14162, Section 3.2): a patch zoomed in, and zoomed out."""

from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from mipkd_sr.imresize import imresize
from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.ranks import BatchDraws


def zoom_out(lq: Tensor, scale: int) -> Tensor:
    """The LR patch downsampled by the scale, B x 3 x H/s x W/s, as MATLAB's antialiased bicubic does it, on its
    device.
    """
    return imresize(lq, Fraction(1, scale))


@region
def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a box out of each image (B x C x H x W), at a row and a column of its own: B x C x height x width."""
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def zoom_in_random(gt: Tensor, height: int, width: int, draws: BatchDraws) -> Tensor:
    """A crop of each HR patch (B x 3 x sH x sW) of the LR patch's size, B x 3 x H x W, at a random place."""
    top = draws.integers(len(gt), gt.shape[-2] - height + 1)
    left = draws.integers(len(gt), gt.shape[-1] - width + 1)
    return crop(gt, top, left, height, width)


def zoom_in_grid(gt: Tensor, scale: int, crops: int, draws: BatchDraws) -> list[Tensor]:
    """Crops of each HR patch (B x 3 x sH x sW) of the LR patch's size, B x 3 x H x W: different tiles of s x s.

    DUKD's authors draw the tiles once for the whole batch; here each sample has its own.
    """
    height, width = gt.shape[-2] // scale, gt.shape[-1] // scale
    tiles = draws.uniform(len(gt), scale**2).argsort(1)[:, :crops]
    return [
        crop(gt, torch.div(tile, scale, rounding_mode='floor') * height, tile % scale * width, height, width)
        for tile in tiles.T
    ]


def zoom_in_hardest(gt: Tensor, teacher_sr: Tensor, height: int, width: int) -> Tensor:
    """The crop of each HR patch (B x 3 x sH x sW) that the teacher reconstructs worst, by mean absolute error: B x 3 x
    H x W.

    The teacher's output for the LR patch exists already, so this costs no further teacher forward. But LR patch and
    crop cannot share one call, as the crop is known only after the first. Every place on a grid of an eighth of the
    crop's sides is compared.
    """
    stride = (max(1, height // 8), max(1, width // 8))
    errors = F.avg_pool2d((teacher_sr - gt).abs().mean(1, keepdim=True), (height, width), stride)
    hardest = errors.flatten(1).argmax(1)
    top = torch.div(hardest, errors.shape[-1], rounding_mode='floor') * stride[0]
    return crop(gt, top, hardest % errors.shape[-1] * stride[1], height, width)
