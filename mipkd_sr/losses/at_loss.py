"""AT: attention transfer.

Paper: Paying More Attention to Attention, https://arxiv.org/abs/1612.03928 (Eq. 2, with F_sum^2 as attention map).
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.objective import StepState


def attention_map(feature: Tensor) -> Tensor:
    """``mean_c F^2``, flattened and divided by its L2 norm: B x C x H x W -> B x HW."""
    return F.normalize(feature.square().mean(1).flatten(1), dim=1)


@LOSS_REGISTRY.register()
class ATLoss(FeatureObjective):
    """``l_at = loss_weight * sum_k MSE(A(F_S), A(F_T))`` with A as in ``attention_map``; for any two widths.

    Args:
        loss_weight: Weight of the loss; 1000 as is usual, the maps' elements being about 1 / sqrt(HW).
        positions: Distillation positions; see ``mipkd_sr.distill.positions``.
    """

    is_pure = True

    def __init__(self, loss_weight: float = 1000.0, positions: int | Sequence[int | float] = 3) -> None:
        super().__init__(positions)
        self.loss_weight = loss_weight

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        losses = [F.mse_loss(attention_map(f_s), attention_map(f_t)) for f_s, f_t in self.features(state)]
        return {'l_at': self.loss_weight * torch.stack(losses).sum()}
