"""A gate: to learn from the teacher only where it is better than the student."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mipkd_sr.distill.objective import StepState


@torch.no_grad()
def teacher_is_better(student_sr: Tensor, teacher_sr: Tensor, gt: Tensor, side: int) -> Tensor:
    """Where the teacher's error is smaller than the student's, by mean absolute error over the colours and a patch.

    The images are B x 3 x sH x sW; ``side`` is that of the patches, in HR pixels, 1 for each pixel by itself. Those at
    the right and bottom edges may be smaller. Returns B x 1 x sH x sW, true or false.
    """
    gain = ((student_sr - gt).abs() - (teacher_sr - gt).abs()).mean(1, keepdim=True)
    if side > 1:
        gain = F.avg_pool2d(gain, side, ceil_mode=True)
        gain = gain.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., : gt.shape[-2], : gt.shape[-1]]
    return gain > 0


@torch.no_grad()
def gated_target(student_sr: Tensor, teacher_sr: Tensor, gt: Tensor, side: int) -> Tensor:
    """The teacher's output where it is better, the student's own elsewhere, as a target without gradient.

    For an objective that compares pixels that is a mask: ``mean |S - target| = mean (mask * |S - T|)``, and the
    gradient is 0 where the mask is 0. An objective that compares features or bands asks for no change there. The
    arguments are those of ``teacher_is_better``.
    """
    better = teacher_is_better(student_sr, teacher_sr, gt, side)
    return torch.where(better, teacher_sr, student_sr.to(teacher_sr.dtype))


def through_gate(state: StepState, side: int) -> StepState:
    """The step's state for an objective with a gate, 0 for none: the teacher's ``lq`` output is ``gated_target``."""
    if not side or 'lq' not in state.teacher:
        return state
    student, teacher = state.student['lq'], state.teacher['lq']
    gated = replace(teacher, sr=gated_target(student.sr.detach(), teacher.sr, state.gt, side))
    return replace(state, teacher={**state.teacher, 'lq': gated})
