"""The block prior mixer of MiPKD (https://arxiv.org/abs/2404.02573, Section 3.2 of its ICLR 2025 version)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipkd_sr.distill.feature_prior_mixer import adapter
from mipkd_sr.distill.objective import NetworkPass, run_units, statistics_kept
from mipkd_sr.runtime.compiling import region

PATHS = ('straight', 'resampled')

TEACHER_PARTS = 6
"""Number of parts in which the backward pass computes a path through the teacher again.

The maps between parts are kept, and, for one part at a time, what autograd needs. The 21 units of EDSR's last two
thirds need 2 maps each; for them 6 parts take the least memory."""


class BlockPriorMixer(nn.Module):
    """Sends a mixed feature map on through the student's or the teacher's remaining units.

    With ``path='straight'`` one draw decides (Eq. 6): ``R ~ Bernoulli(student_probability)``. All remaining units run
    in the student (R = 1) or in the teacher (R = 0). With 'resampled' R is drawn anew at every later position, so the
    map can go from one network to the other and back. That is the "dynamic combination of blocks" of the paper's text.
    The last network gives the tail.

    The mixed map has the teacher's width. Where the widths differ, a learned 1 x 1 at each position brings it to the
    network that takes it over; the paper does not say how.

    Args:
        unit_pairs: For each position, the unit index in the student and in the teacher; ascending.
        widths: For each position, the student's and the teacher's width.
        path: 'straight' or 'resampled'.
        student_probability: P(R = 1).

    Attributes:
        teacher_parts: See ``TEACHER_PARTS``; 0 to keep the teacher's activations instead.
    """

    def __init__(
        self,
        unit_pairs: Sequence[tuple[int, int]],
        widths: Sequence[tuple[int, int]],
        path: str = 'straight',
        student_probability: float = 0.75,
    ) -> None:
        super().__init__()
        self.unit_pairs = list(unit_pairs)
        self.student_probability = student_probability
        self.is_resampled = path == 'resampled'
        self.teacher_parts = TEACHER_PARTS
        self.to_student = nn.ModuleList(adapter(width_t, width_s) for width_s, width_t in widths)
        # a map can go back to the teacher only after the first position, and only where R is drawn anew
        self.to_teacher = nn.ModuleList(
            adapter(width_s, width_t) if self.is_resampled and k > 0 else nn.Identity()
            for k, (width_s, width_t) in enumerate(widths)
        )

    def forward(
        self,
        k: int,
        mixed: Tensor,
        student: NetworkPass,
        teacher: NetworkPass,
        rng: torch.Generator,
        sizes: Sequence[tuple[Tensor | float, Tensor | float]],
    ) -> tuple[Tensor, list[bool]]:
        """Send the mixed map of position ``k`` to the end of a network.

        Args:
            k: The position, from 0.
            mixed: F_E over its size, B x C_T x H x W.
            student: What the student computed on the same images.
            teacher: What the teacher computed on them.
            rng: Generator of the draws, on the CPU.
            sizes: For each position, the sizes of the student's and the teacher's map. A map is scaled to the size of
                the network that takes it over.

        Returns:
            I_E, B x 3 x sH x sW, and, for each part of the path, whether it ran in the student.
        """
        in_student = False  # it has the teacher's width
        taken: list[bool] = []
        last = len(self.unit_pairs) - 1 if self.is_resampled else k
        for position in range(k, last + 1):
            goes_to_student = torch.rand((), generator=rng).item() < self.student_probability
            run, side, parts = (student, 0, 0) if goes_to_student else (teacher, 1, self.teacher_parts)
            crosses = goes_to_student != in_student
            if crosses or not taken:
                adapters = (self.to_student if goes_to_student else self.to_teacher) if crosses else None
                before = sizes[position][1 - side] if crosses and taken else None
                mixed = _enter(adapters[position] if adapters else None, mixed, before, sizes[position][side])
            in_student = goes_to_student
            taken.append(in_student)
            start = self.unit_pairs[position][side]
            stop = run.net.depth if position == last else self.unit_pairs[position + 1][side]
            with statistics_kept(run.net):
                mixed = run_units(run.net, mixed, run.context, start, stop, parts, to_end=position == last)
        return mixed, taken


@region
def _enter(adapter_to: nn.Module | None, mixed: Tensor, before: Tensor | float | None, after: Tensor | float) -> Tensor:
    """Fit a map to the network that takes it over: divide it by the size ``before``, adapt its width, multiply it by
    ``after``."""
    over = mixed if before is None else mixed / before
    return (over if adapter_to is None else adapter_to(over)) * after
