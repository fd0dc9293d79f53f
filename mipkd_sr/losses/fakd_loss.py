"""FAKD: feature affinity.

Paper: FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image Super-Resolution (ICIP 2020), Eq. 1 to 3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.objective import StepState

ELEMENTS_A_PIECE = {'cpu': 2**19, 'cuda': 2**23}
"""Elements of the affinity matrices that are held at a time: what stays in a CPU's cache, or keeps a GPU busy."""

ROWS_A_PIECE = 256
"""Rows of one image's matrix that a piece has, about; below that, products are slow, and images are taken together."""


class _AffinityDistance(torch.autograd.Function):
    """``sum |S'S - T'T|`` of maps with columns of norm 1, B x C x N, with its gradient by S.

    Let D = S'S - T'T, which is N x N and symmetric. D is computed a few rows at a time; each piece starts at the
    diagonal, and the part right of it counts twice. The gradient by column i of S is

        2 sum_j sign(D_ij) S_j

    ``forward`` adds it up while it has the piece, so that no piece is kept and none is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, flat_s: Tensor, flat_t: Tensor, elements: int) -> Tensor:
        pixels = flat_s.shape[-1]
        images = max(1, elements // (ROWS_A_PIECE * pixels))
        total, gradient = flat_s.new_zeros(()), torch.zeros_like(flat_s)
        for s, t, grad in zip(flat_s.split(images), flat_t.split(images), gradient.split(images), strict=True):
            rows = max(1, elements // (len(s) * pixels))
            for start in range(0, pixels, rows):
                own, after, later = slice(start, start + rows), slice(start, None), slice(start + rows, None)
                piece = t[..., own].mT @ t[..., after]
                torch.baddbmm(piece, s[..., own].mT, s[..., after], beta=-1, out=piece)
                on_diagonal = torch.linalg.vector_norm(piece[..., :rows], 1)
                total += 2 * torch.linalg.vector_norm(piece, 1) - on_diagonal  # the rest is there twice
                piece.sign_()
                grad[..., own].baddbmm_(s[..., after], piece.mT, alpha=2)
                grad[..., later].baddbmm_(s[..., own], piece[..., rows:], alpha=2)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad * ctx.saved_tensors[0], None, None


def affinity_distance(feature_s: Tensor, feature_t: Tensor, elements: int | None = None) -> Tensor:
    """``mean |A_S - A_T|``, a scalar; the affinity matrix A = F'F is HW x HW, F's columns (a pixel's channels) of norm
    1.

    F is B x C x H x W; the teacher's gets no gradient. A is computed a few rows at a time (``elements`` of it, or
    ``ELEMENTS_A_PIECE``), so that the peak memory grows with the number of pixels and not with its square. Value and
    gradient are those of the whole matrix; mixed precision is left aside.
    """
    with torch.autocast(feature_s.device.type, enabled=False):
        # half precision would round the differences away
        dtype = torch.promote_types(feature_s.dtype, torch.float32)
        flat_s, flat_t = (F.normalize(map_.to(dtype).flatten(2), dim=1) for map_ in (feature_s, feature_t.detach()))
        elements = elements or ELEMENTS_A_PIECE.get(flat_s.device.type, ELEMENTS_A_PIECE['cuda'])
        batch, _, pixels = flat_s.shape
        total: Tensor = _AffinityDistance.apply(flat_s, flat_t, elements)
        return total / (batch * pixels * pixels)


@LOSS_REGISTRY.register()
class FAKDLoss(FeatureObjective):
    """``l_fakd = loss_weight * sum_k mean |A_S - A_T|``; see ``affinity_distance``. For any two widths.

    Args:
        loss_weight: Weight of the loss. The authors' total is ``0.5 L1(S, HR) + 0.5 L1(S, T) + 10 l_fakd`` for images
            in [0, 255]; for images in [0, 1], whose L1 is 255 times smaller, that is 10 / 255 beside weights of 0.5 and
            0.5, or 20 / 255 beside 1 and 1, the default here. (DUKD's program has 10 beside 1 and 1 for images in
            [0, 1], but its term reaches no gradient.)
        positions: Distillation positions; see ``mipkd_sr.distill.positions``.
    """

    def __init__(self, loss_weight: float = 20 / 255, positions: int | Sequence[int | float] = 3) -> None:
        super().__init__(positions)
        self.loss_weight = loss_weight

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        losses = [affinity_distance(feature_s, feature_t) for feature_s, feature_t in self.features(state)]
        return {'l_fakd': self.loss_weight * torch.stack(losses).sum()}
