"""ECO: targets that move from the teacher's output to the HR image.

Empirical centroid-oriented optimization, as the trainer traiNNer-redux has it (``train: eco``), whose two modes are
here.
"""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.distill.objective import Objective, StepState, View
from mipkd_sr.distill.weight_schedule import Schedule
from mipkd_sr.distill.zooming import zoom_out
from mipkd_sr.runtime.ranks import BatchDraws


@LOSS_REGISTRY.register()
class ECOLoss(Objective):
    """``l_eco = loss_weight * L1(S(x), (1 - a) T + a HR)``, in the place of the pixel loss.

    ``a`` rises from 0 to 1 over the first part of the training, and T is the teacher's output within [0, 1]. With
    ``mix_input`` the student's input moves too: ``x = (1 - a) down(T) + a LR``, where ``down`` is MATLAB's bicubic (the
    trainer's is its own antialiased bicubic); else ``x = LR``. Once ``a`` is 1 it is the plain L1 loss. Mixed input
    costs a second forward of the student while ``a`` is below 1.

    Args:
        loss_weight: Weight of the loss.
        until: Part of the training at which ``a`` is 1 (the trainer's default: 0.75).
        mix_input: Whether the student's input is mixed as well (the trainer's 'full' mode and its default).

    Raises:
        ValueError: If ``until`` is not in (0, 1].
    """

    def __init__(self, loss_weight: float = 1.0, until: float = 0.75, mix_input: bool = True) -> None:
        super().__init__()
        if not 0 < until <= 1:
            raise ValueError(f'until must be in (0, 1], not {until}')
        self.loss_weight = loss_weight
        self.ramp = Schedule('linear', 0.0, 1.0, 0.0, until)
        self.needs_teacher_first = mix_input
        self.mix_input = mix_input
        self.scale = 0

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Learn the scale."""
        self.scale = scale

    def views(self, lq: Tensor, gt: Tensor, teacher_sr: Tensor | None, draws: BatchDraws) -> dict[str, View]:
        """The mixed input, for the student alone."""
        part = self.ramp.factor(self.progress)
        if not self.mix_input or part == 1 or teacher_sr is None:
            return {}
        return {'mixed': View(torch.lerp(zoom_out(teacher_sr.clamp(0, 1).to(lq.dtype), self.scale), lq, part), None)}

    def forward(self, state: StepState) -> dict[str, Tensor]:
        """See ``Objective.forward``; logs ``a`` as ``eco/hr``."""
        part = self.ramp.factor(state.progress)
        state.logs['eco/hr'] = part
        target = (
            state.gt if part == 1 else torch.lerp(state.teacher['lq'].sr.clamp(0, 1).to(state.gt.dtype), state.gt, part)
        )
        sr = state.student['mixed' if 'mixed' in state.student else 'lq'].sr
        return {'l_eco': self.loss_weight * F.l1_loss(sr, target)}
