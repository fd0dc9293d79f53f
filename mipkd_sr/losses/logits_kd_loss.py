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
    """

    needs_gt = False
    compares_outputs = True
    is_pure = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        return {'l_kd': self.loss_weight * F.l1_loss(state.student['lq'].sr, state.teacher['lq'].sr)}
