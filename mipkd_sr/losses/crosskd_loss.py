"""CrossKD: the student's first part through the teacher's last part, and the reverse.

Paper: Dual cross knowledge distillation for image super-resolution (Fang et al., J. Vis. Commun. Image R. 2023).
"""

from collections.abc import Sequence

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.archs.staged import Context, StagedNetwork
from mipkd_sr.distill.feature_objective import FeatureObjective, sized
from mipkd_sr.distill.feature_prior_mixer import adapter
from mipkd_sr.distill.objective import StepState, run_units, statistics_kept
from mipkd_sr.runtime.compiling import alone


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
        with statistics_kept(student.net), statistics_kept(teacher.net):
            contexts = student.context, teacher.context
            return {'l_cross': _cross(self, student.net, teacher.net, self.features(state), *contexts, teacher.sr)}


@alone
def _cross(
    objective: CrossKDLoss,
    net_s: StagedNetwork,
    net_t: StagedNetwork,
    features: list[tuple[Tensor, Tensor]],
    context_s: Context,
    context_t: Context,
    target: Tensor,
) -> Tensor:
    loss = target.new_zeros(())
    for k, (unit_s, unit_t, size_s, size_t) in enumerate(sized(features)):
        index_s, index_t = objective.unit_pairs[k]
        to_teacher, to_student = size_t * objective.to_teacher[k](unit_s), size_s * objective.to_student[k](unit_t)
        loss = loss + F.l1_loss(run_units(net_t, to_teacher, context_t, index_t, net_t.depth, to_end=True), target)
        loss = loss + F.l1_loss(run_units(net_s, to_student, context_s, index_s, net_s.depth, to_end=True), target)
    return objective.loss_weight * loss
