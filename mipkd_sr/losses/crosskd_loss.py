"""CrossKD: the student's first part through the teacher's last part, and the reverse.

Paper: Dual cross knowledge distillation for image super-resolution (Fang et al., J. Vis. Commun. Image R. 2023).
"""

from collections.abc import Sequence

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.feature_prior_mixer import adapter
from mipkd_sr.distill.objective import StepState


@LOSS_REGISTRY.register()
class CrossKDLoss(FeatureObjective):
    """``l_cross = loss_weight * sum_k [L1(T_>k(S_<=k), T) + L1(S_>k(T_<=k), T)]``.

    S_<=k is the student's feature map at position k, T_>k the teacher's units and tail after it, T the teacher's
    output. Where the widths differ, a learned 1 x 1 stands between the networks. A map that crosses is brought to the
    size that the other network's has there, see ``size_of``. The teacher's weights get no gradient, its activations
    pass one.

    Args:
        loss_weight: Weight of the loss.
        positions: Distillation positions; see ``mipkd_sr.distill.positions``. The middle of the body by default.
    """

    def __init__(self, loss_weight: float = 1.0, positions: int | Sequence[int | float] = (0.5,)) -> None:
        super().__init__(positions)
        self.loss_weight = loss_weight
        self.to_teacher = nn.ModuleList()
        self.to_student = nn.ModuleList()

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Find the positions and create the 1 x 1 between the networks."""
        super().attach(student, teacher, lq_size, scale)
        self.to_teacher = nn.ModuleList(adapter(width_s, width_t) for width_s, width_t in self.widths)
        self.to_student = nn.ModuleList(adapter(width_t, width_s) for width_s, width_t in self.widths)

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        student, teacher = state.student['lq'], state.teacher['lq']
        loss = state.lq.new_zeros(())
        for k, (unit_s, unit_t, size_s, size_t) in enumerate(self.sized_features(state)):
            index_s, index_t = self.unit_pairs[k]
            loss = loss + F.l1_loss(teacher.run_rest(size_t * self.to_teacher[k](unit_s), index_t), teacher.sr)
            loss = loss + F.l1_loss(student.run_rest(size_s * self.to_student[k](unit_t), index_s), teacher.sr)
        return {'l_cross': self.loss_weight * loss}
