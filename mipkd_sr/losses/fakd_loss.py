"""FAKD: feature affinity.

Paper: FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image Super-Resolution (ICIP 2020), Eq. 1 to 3.
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.objective import StepState

ELEMENTS_A_PIECE = 2**23
"""Elements of the affinity matrices that are held at a time (32 MiB in single precision, a few times over)."""


def _piece(rows_s: Tensor, flat_s: Tensor, rows_t: Tensor, flat_t: Tensor) -> Tensor:
    """The sum of |A_S - A_T| over some rows of the affinity matrices."""
    return (rows_s.mT @ flat_s - rows_t.mT @ flat_t).abs().sum()


def affinity_distance(feature_s: Tensor, feature_t: Tensor, elements: int = ELEMENTS_A_PIECE) -> Tensor:
    """``mean |A_S - A_T|``, the affinity matrix A = F'F being HW x HW, F's columns (a pixel's channels) of norm 1.

    A is computed a few rows at a time, and again in the backward pass, so that the peak memory grows with the number of
    pixels and not with its square. Value and gradient are those of the whole matrix.

    Args:
        feature_s: The student's feature map, B x C_S x H x W.
        feature_t: The teacher's, B x C_T x H x W.
        elements: Elements of A that are held at a time.

    Returns:
        A scalar.
    """
    flat_s, flat_t = F.normalize(feature_s.flatten(2), dim=1), F.normalize(feature_t.flatten(2), dim=1)
    batch, _, pixels = flat_s.shape
    rows = max(1, elements // (batch * pixels))
    total = flat_s.new_zeros(())
    for start in range(0, pixels, rows):
        part = slice(start, start + rows)
        total = total + checkpoint(
            _piece, flat_s[..., part], flat_s, flat_t[..., part], flat_t, use_reentrant=False, preserve_rng_state=False
        )
    return total / (batch * pixels * pixels)


@LOSS_REGISTRY.register()
class FAKDLoss(FeatureObjective):
    """``l_fakd = loss_weight * sum_k mean |A_S - A_T|``; see ``affinity_distance``. For any two widths.

    Args:
        loss_weight: Weight of the loss. The authors' program weighs it 10 against losses of images in [0, 255]; for
            images in [0, 1], whose losses are 255 times smaller, that is 10 / 255.
        positions: Distillation positions; see ``mipkd_sr.distill.positions``.
    """

    def __init__(self, loss_weight: float = 10 / 255, positions: int | Sequence[int | float] = 3) -> None:
        super().__init__(positions)
        self.loss_weight = loss_weight

    def forward(self, state: StepState) -> dict[str, Tensor]:
        """See ``Objective.forward``."""
        losses = [affinity_distance(feature_s, feature_t) for feature_s, feature_t in self.features(state)]
        return {'l_fakd': self.loss_weight * torch.stack(losses).sum()}
