"""Masks of the feature prior mixer: which elements of the mix come from the teacher."""

import torch
from torch import Tensor


def random_mask(like: Tensor, teacher_ratio: float) -> Tensor:
    """Independent for each sample and element: 1 (the teacher's) with probability ``teacher_ratio``, else 0.

    Args:
        like: Latent map, B x L x H x W; gives shape, type and device.
        teacher_ratio: In [0, 1].
    """
    return (torch.rand_like(like) < teacher_ratio).to(like.dtype)


def grid_mask(like: Tensor, teacher_ratio: float) -> Tensor:
    """A fixed, even pattern over channels, rows and columns that takes a part ``teacher_ratio`` from the teacher.

    The element at (c, y, x) has the running number c + y + x; it is the teacher's where ``number * teacher_ratio``
    passes a whole number. At 0.5 this is a checkerboard that changes sides from channel to channel.

    Args:
        like: Latent map, B x L x H x W; gives shape, type and device.
        teacher_ratio: In [0, 1].
    """
    channel, row, column = (torch.arange(size, device=like.device) for size in like.shape[1:])
    number = channel[:, None, None] + row[None, :, None] + column[None, None, :]
    passed = torch.floor((number + 1) * teacher_ratio) - torch.floor(number * teacher_ratio)
    return passed.to(like.dtype).expand_as(like)


MASKS = {'random': random_mask, 'grid': grid_mask}
"""The masks by their names in option files."""
