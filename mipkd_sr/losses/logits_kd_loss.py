"""Logits KD: the student learns the teacher's output.

As stated in MiPKD (ICLR 2025 version, Eq. 1): ``L_kd = L1(S, T)``.
"""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.objective import Objective, StepState


@LOSS_REGISTRY.register()
class LogitsKDLoss(Objective):
    """``l_kd = loss_weight * mean |S - T|`` on images in [0, 1].

    Args:
        loss_weight: Weight of the loss.
        squared: Whether it is ``loss_weight * mean (S - T)^2``, which suits training at 8 bits: the teacher is
            the student in single precision, and what is left is rounding.
    """

    needs_gt = False
    compares_outputs = True
    is_pure = True

    def __init__(self, loss_weight: float = 1.0, squared: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.distance = F.mse_loss if squared else F.l1_loss

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        return {'l_kd': self.loss_weight * self.distance(state.student['lq'].sr, state.teacher['lq'].sr)}
