"""MTKD's wavelet loss: the student's output and the teacher's, compared band by band.

Paper: MTKD: Multi-Teacher Knowledge Distillation for Image Super-Resolution, https://arxiv.org/abs/2404.09571.
"""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.objective import Objective, StepState


def haar_bands(images: Tensor, levels: int) -> list[Tensor]:
    """Take images (B x C x H x W; ``2 ** levels`` divides H and W) apart into Haar's orthonormal bands.

    A level takes each square of four pixels ``a b / c d`` to ``(a+b+c+d)/2`` (low) and ``(a-b+c-d)/2``,
    ``(a+b-c-d)/2``, ``(a-b-c+d)/2`` (high: left from right, top from bottom, diagonal); the next one does so with the
    low band.

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


@LOSS_REGISTRY.register()
class WaveletLoss(Objective):
    """``l_wavelet = loss_weight * (sum_l mean|H_l(S) - H_l(T)| + mean|L(S) - L(T)|)``.

    H_l are the high bands of level l of Haar's wavelets, L is the low band that is left; every band of every sample
    counts. The authors' program takes the number of the last level as an index into the low band, which has no levels
    but samples: of a batch it compares one sample's low band alone.

    Args:
        loss_weight: Weight of the loss.
        levels: Levels of the transform; 4 is the default of the authors' program. ``2 ** levels`` must divide the HR
            patch's side.

    Raises:
        ValueError: If there is no level.
    """

    needs_gt = False
    compares_outputs = True
    is_pure = True

    def __init__(self, loss_weight: float = 1.0, levels: int = 4) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f'levels must be at least 1, not {levels}')
        self.loss_weight = loss_weight
        self.levels = levels

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Check that the HR patch divides into the last level's squares."""
        if (lq_size * scale) % 2**self.levels:
            raise ValueError(f'{self.levels} levels need an HR patch that {2**self.levels} divides: {lq_size * scale}')

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        student, teacher = (haar_bands(run['lq'].sr, self.levels) for run in (state.student, state.teacher))
        terms = [F.l1_loss(own, wanted) for own, wanted in zip(student, teacher, strict=True)]
        return {'l_wavelet': self.loss_weight * sum(terms[1:], terms[0])}
