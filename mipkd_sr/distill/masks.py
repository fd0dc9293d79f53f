"""Masks of the feature prior mixer: which elements of the mix come from the teacher.

A mask is 1 where the element is the teacher's and 0 where it is the student's. It is made from the student's and the
teacher's latent map (B x L x H x W each), the share ``teacher_ratio`` of the teacher's elements, and the step's random
numbers. The paper (MiPKD, Table 10) compares a random, a grid and two similarity masks, and does not define the last
two. Our reading: where student and teacher are least alike, the teacher's element is taken.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mipkd_sr.runtime.ranks import BatchDraws


def random_mask(latent_s: Tensor, latent_t: Tensor, teacher_ratio: float, draws: BatchDraws) -> Tensor:
    """Independent for each sample and element: 1 with probability ``teacher_ratio``."""
    return draw_mask(latent_t.shape, teacher_ratio, draws).to(latent_t.dtype)


def draw_mask(shape: Sequence[int], teacher_ratio: float, draws: BatchDraws) -> Tensor:
    """``random_mask`` for maps of a shape, as true and false."""
    return draws.uniform(*shape) < teacher_ratio


def grid_mask(latent_s: Tensor, latent_t: Tensor, teacher_ratio: float, draws: BatchDraws) -> Tensor:
    """A fixed, even pattern over channels, rows and columns.

    The element at (c, y, x) has the running number c + y + x; it is the teacher's where ``number * teacher_ratio``
    passes a whole number. At 0.5 this is a checkerboard that changes sides from channel to channel.
    """
    channel, row, column = (torch.arange(size, device=latent_t.device) for size in latent_t.shape[1:])
    number = channel[:, None, None] + row[None, :, None] + column[None, None, :]
    passed = torch.floor((number + 1) * teacher_ratio) - torch.floor(number * teacher_ratio)
    return passed.to(latent_t.dtype).expand_as(latent_t)


def cosine_mask(latent_s: Tensor, latent_t: Tensor, teacher_ratio: float, draws: BatchDraws) -> Tensor:
    """Whole pixels: those whose channel vectors have the least cosine similarity, the same number in each sample."""
    similarity = F.cosine_similarity(latent_s, latent_t, dim=1).flatten(1)
    return _least_alike(similarity, teacher_ratio).view(-1, 1, *latent_t.shape[2:]).expand_as(latent_t)


def cka_mask(latent_s: Tensor, latent_t: Tensor, teacher_ratio: float, draws: BatchDraws) -> Tensor:
    """Whole channels: those with the least linear CKA over their pixels, the same number in each sample.

    Between two single channels linear CKA (Kornblith et al. 2019, https://arxiv.org/abs/1905.00414) is the square of
    their correlation.
    """
    flat_s, flat_t = (latent.flatten(2) - latent.flatten(2).mean(2, keepdim=True) for latent in (latent_s, latent_t))
    similarity = F.cosine_similarity(flat_s, flat_t, dim=2).square()
    return _least_alike(similarity, teacher_ratio)[:, :, None, None].expand_as(latent_t)


def _least_alike(similarity: Tensor, teacher_ratio: float) -> Tensor:
    """1 for the least similar share ``teacher_ratio`` of each row (B x N), 0 for the rest; without gradient."""
    count = round(similarity.shape[1] * teacher_ratio)
    least = similarity.detach().argsort(1)[:, :count]
    return torch.zeros_like(similarity).scatter_(1, least, 1.0)


MASKS = {'random': random_mask, 'grid': grid_mask, 'cosine': cosine_mask, 'cka': cka_mask}
"""The masks by their names in option files."""
