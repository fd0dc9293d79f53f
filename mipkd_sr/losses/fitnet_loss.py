"""FitNet: hints from intermediate features.

Paper: FitNets: Hints for Thin Deep Nets, https://arxiv.org/abs/1412.6550 (Eq. 3).
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.feature_prior_mixer import adapter
from mipkd_sr.distill.objective import StepState


@LOSS_REGISTRY.register()
class FitNetLoss(FeatureObjective):
    """``l_fitnet = loss_weight * sum_k MSE(r_k(F_S / |F_S|), F_T / |F_T|)``, |F| being the root of F's mean square.

    The regressor r_k is a learned 1 x 1 where the widths differ and the identity where they do not.

    Args:
        loss_weight: Weight of the loss.
        positions: Distillation positions; see ``mipkd_sr.distill.positions``.
        normalize: Whether the maps are divided by |F|. Then the weight means the same whatever the networks' inner
            image range: without it, as in the paper, features of EDSR and RCAN, whose images are in [0, 255] inside,
            weigh 255^2 times as much as SwinIR's, and a student's whose range is not its teacher's weigh anything.
    """

    is_pure = True

    def __init__(
        self, loss_weight: float = 1.0, positions: int | Sequence[int | float] = 3, normalize: bool = True
    ) -> None:
        super().__init__(positions)
        self.loss_weight = loss_weight
        self.normalize = normalize
        self.regressors = nn.ModuleList()

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Find the positions and create the regressors."""
        super().attach(student, teacher, lq_size, scale)
        self.regressors = nn.ModuleList(adapter(width_s, width_t) for width_s, width_t in self.widths)

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        pairs = self.features(state)
        if self.normalize:
            pairs = [(pair.student, pair.teacher) for pair in self.sized_features(state, power=2)]
        losses = [
            F.mse_loss(regressor(feature_s), feature_t)
            for regressor, (feature_s, feature_t) in zip(self.regressors, pairs, strict=True)
        ]
        return {'l_fitnet': self.loss_weight * torch.stack(losses).sum()}
