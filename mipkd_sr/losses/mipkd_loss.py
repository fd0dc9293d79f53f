"""MiPKD: Knowledge Distillation with Multi-granularity Mixture of Priors for Image Super-Resolution.

Paper: https://arxiv.org/abs/2404.02573 (ICLR 2025). There is no public code; what the paper leaves unsaid is an
argument here, with a default and its reason.
"""

from collections.abc import Callable, Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs.staged import feature_shapes, is_staged
from mipkd_sr.distill.feature_prior_mixer import FeaturePriorMixer
from mipkd_sr.distill.masks import MASKS
from mipkd_sr.distill.objective import Objective, StepState
from mipkd_sr.distill.positions import unit_indices

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {'l1': F.l1_loss, 'l2': F.mse_loss}
KERNELS = {'conv': 3, 'mlp': 1}


@LOSS_REGISTRY.register()
class MiPKDLoss(Objective):
    """Feature prior mixer and block prior mixer at K distillation positions.

    At each position, with F_S and F_T the student's and the teacher's feature map there and T the teacher's output:

    * ``F_E = Dec(Enc_S(F_S) * (1 - M) + Enc_T(F_T) * M)`` (feature prior mixer, Eq. 3 to 5);
    * ``l_feat = D(F_E, F_T)``, and early in training ``l_ae = D(Dec(Enc_T(F_T)), F_T)``;
    * ``R ~ Bernoulli(student_probability)``: F_E goes on through the rest of the student (R = 1) or of the teacher
      (R = 0) and gives I_E; ``l_block = D(I_E, T)`` (block prior mixer, Eq. 7).

    Each loss is summed over the positions.

    Args:
        feat_weight: Weight of l_feat (paper, Table 11: 1).
        block_weight: Weight of l_block (paper, Table 11: 0.1).
        ae_weight: Weight of l_ae; unsaid. 1, as l_feat's.
        ae_until: Part of the training that l_ae lasts, in [0, 1]; unsaid ("early").
        positions: Distillation positions: K, or a list; see ``mipkd_sr.distill.positions``.
        latent_width: Channels of the latent space; unsaid. The student's width if None, the cheapest without a
            bottleneck on the student's side.
        latent_depth: Convolutions in each encoder and in the decoder; unsaid. 1, the cheapest.
        encoder: 'conv' (3 x 3) or 'mlp' (1 x 1).
        mask: 'random' or 'grid'.
        teacher_ratio: Part of the mix that is the teacher's; unsaid. 0.5, an even mix.
        distance: D: 'l1' or 'l2'.
        student_probability: P(R = 1); unsaid. 0.5.
        drop_probability: Probability that a position's l_block is left out of a step; unsaid. 0.
        normalize: Whether l_feat and l_ae are divided by the mean of |F_T|. Features scale with a network's inner image
            range, so without it the same weight means 255 times as much for EDSR as for SwinIR.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        feat_weight: float = 1.0,
        block_weight: float = 0.1,
        ae_weight: float = 1.0,
        ae_until: float = 0.1,
        positions: int | Sequence[int | float] = 3,
        latent_width: int | None = None,
        latent_depth: int = 1,
        encoder: str = 'conv',
        mask: str = 'random',
        teacher_ratio: float = 0.5,
        distance: str = 'l1',
        student_probability: float = 0.5,
        drop_probability: float = 0.0,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ('encoder', encoder, KERNELS), ('mask', mask, MASKS), ('distance', distance, DISTANCES),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} '{value}' is not one of {', '.join(allowed)}")
        for name, number in (
            ('ae_until', ae_until),
            ('teacher_ratio', teacher_ratio),
            ('student_probability', student_probability),
            ('drop_probability', drop_probability),
        ):
            if not 0 <= number <= 1:
                raise ValueError(f'{name} must be in [0, 1], not {number}')
        self.feat_weight = feat_weight
        self.block_weight = block_weight
        self.ae_weight = ae_weight
        self.ae_until = ae_until
        self.positions = positions
        self.latent_width = latent_width
        self.latent_depth = latent_depth
        self.kernel = KERNELS[encoder]
        self.mask = mask
        self.teacher_ratio = teacher_ratio
        self.distance = DISTANCES[distance]
        self.student_probability = student_probability
        self.drop_probability = drop_probability
        self.normalize = normalize
        self.mixers = nn.ModuleList()
        self.to_student = nn.ModuleList()
        self._indices: list[tuple[int, int]] = []

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Find the positions in both networks, and create a mixer for each."""
        shapes = [self._shapes('student', student), self._shapes('teacher', teacher)]
        self._indices = list(zip(*(list(shape) for shape in shapes), strict=True))
        for index_s, index_t in self._indices:
            shape_s, shape_t = shapes[0][index_s], shapes[1][index_t]
            if shape_s[1:] != shape_t[1:]:
                raise ValueError(f"the student's features ({shape_s}) and the teacher's ({shape_t}) differ in size")
            self._add_position(shape_s[0], shape_t[0])

    def _shapes(self, name: str, net: nn.Module | None) -> dict[int, tuple[int, ...]]:
        if not is_staged(net):
            raise ValueError(f'{type(net).__name__}, the {name}, has no head, body and tail, which MiPKD needs')
        return feature_shapes(net, unit_indices(self.positions, net.depth))

    def _add_position(self, width_s: int, width_t: int) -> None:
        self.mixers.append(
            FeaturePriorMixer(
                width_s,
                width_t,
                self.latent_width or width_s,
                self.latent_depth,
                self.kernel,
                self.mask,
                self.teacher_ratio,
            )
        )
        # The paper does not say how F_E, which has the teacher's width, enters the student: here through a 1 x 1.
        self.to_student.append(nn.Identity() if width_s == width_t else nn.Conv2d(width_t, width_s, 1))

    def student_indices(self) -> list[int]:
        """See ``Objective.student_indices``."""
        return [index for index, _ in self._indices]

    def teacher_indices(self) -> list[int]:
        """See ``Objective.teacher_indices``."""
        return [index for _, index in self._indices]

    def forward(self, state: StepState) -> dict[str, Tensor]:
        """See ``Objective.forward``; logs each position's losses and path (1 student, 0 teacher, -1 dropped)."""
        student, teacher = state.student['lq'], state.teacher['lq']
        zero = student.sr.new_zeros(())
        losses = {'l_feat': zero, 'l_block': zero}
        with_ae = self.ae_weight > 0 and state.progress <= self.ae_until
        if with_ae:
            losses['l_ae'] = zero
        for k, (index_s, index_t) in enumerate(self._indices):
            feature_t = teacher.features[index_t]
            mixed, restored = self.mixers[k](student.features[index_s], feature_t, with_ae)
            unit = feature_t.abs().mean() if self.normalize else 1.0
            terms = {'l_feat': self.feat_weight * self.distance(mixed / unit, feature_t / unit)}
            if with_ae:
                terms['l_ae'] = self.ae_weight * self.distance(restored / unit, feature_t / unit)
            path, image = self._block_path(k, mixed, state)
            if image is not None:
                terms['l_block'] = self.block_weight * self.distance(image, teacher.sr)
            for name, value in terms.items():
                losses[name] = losses[name] + value
                state.logs[f'mipkd/{name}_{k + 1}'] = value.detach()
            state.logs[f'mipkd/path_{k + 1}'] = path
        return losses

    def _block_path(self, k: int, mixed: Tensor, state: StepState) -> tuple[float, Tensor | None]:
        """Draw R for position ``k`` and send F_E on: the path's number for the log, and I_E (None if dropped)."""
        drop, to_student = torch.rand(2, generator=state.branch_rng).tolist()
        index_s, index_t = self._indices[k]
        if drop < self.drop_probability:
            return -1.0, None
        if to_student < self.student_probability:
            return 1.0, state.student['lq'].go_on(self.to_student[k](mixed), index_s)
        return 0.0, state.teacher['lq'].go_on(mixed, index_t)
