"""MiPKD: Knowledge Distillation with Multi-granularity Mixture of Priors for Image Super-Resolution.

Paper: its ICLR 2025 version, whose numbers of equations, sections and tables are used here
(https://proceedings.iclr.cc/paper_files/paper/2025/hash/dcdaccb57420cb344b73da90f2281f11-Abstract-Conference.html; the
first version, https://arxiv.org/abs/2404.02573v1, has lower results and other numbers). There is no public code; what
the paper leaves unsaid is an argument here, with a default and its reason. The defaults are tuned by short studies on
small networks (experiments/studies/mipkd); options/train/mipkd_paper has what the paper says.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from mipkd_sr.distill.block_prior_mixer import PATHS, BlockPriorMixer
from mipkd_sr.distill.distances import DISTANCES
from mipkd_sr.distill.feature_objective import FeatureObjective, SizedPair, sized
from mipkd_sr.distill.feature_prior_mixer import ENCODERS, KERNELS, FeaturePriorMixer
from mipkd_sr.distill.masks import MASKS
from mipkd_sr.distill.objective import StepState
from mipkd_sr.distill.weight_schedule import Schedule
from mipkd_sr.runtime.compiling import alone, region


@LOSS_REGISTRY.register()
class MiPKDLoss(FeatureObjective):
    """Feature prior mixer and block prior mixer at K distillation positions.

    At each position, with F_S and F_T the student's and the teacher's feature map there and T the teacher's output:

    * ``F_E = Dec(Enc_S(F_S) * (1 - M) + Enc_T(F_T) * M)`` (feature prior mixer, Eq. 3 to 5);
    * ``l_feat = D(F_E, F_T)``, and early in training ``l_ae = D(Dec(Enc_T(F_T)), F_T)``;
    * F_E goes on through the student's or the teacher's remaining units, which gives I_E;
      ``l_block = D(I_E, T)`` (block prior mixer, Eq. 6 to 8).

    Each loss is summed over the positions. Student and teacher may be of any width, depth and architecture as long as
    their feature maps have the same height and width.

    With constant weights these terms hold a student back in a long training; a ``schedule`` lets them fall to nothing,
    and ``balance`` bounds their gradient between unlike networks (docs/which_method.md).

    Args:
        feat_weight: Weight of l_feat (paper, Table 11: 1).
        block_weight: Weight of l_block (paper, Table 11: 0.1).
        ae_weight: Weight of l_ae; unsaid. 1, as l_feat's; 0 turns it off.
        ae_until: Part of the training that l_ae lasts, in [0, 1]; unsaid ("early").
        positions: Distillation positions: K, or a list; see ``mipkd_sr.distill.positions``.
        encoder: 'separate', 'shared' or 'none'; see ``mipkd_sr.distill.feature_prior_mixer``.
        layer: 'conv' (3 x 3) or 'mlp' (1 x 1).
        latent_width: Channels of the latent space: a number; 'teacher', the paper's, whose latent space has the feature
            maps' own dimensions C x H x W (Section 3.2) and does not say whose C; or None, half the student's width:
            better than the whole or twice of it in our study (experiments/studies/mipkd), and cheaper.
        latent_depth: Convolutions in each encoder and in the decoder; unsaid. 1, the cheapest.
        mask: 'random', 'grid', 'cosine' or 'cka'; see ``mipkd_sr.distill.masks``.
        teacher_ratio: Part of the mix that is the teacher's; unsaid. 0.25: better than 0.5 and 0.75 in our study. The
            paper's recipes have 0.5, which prefers neither.
        distance: D: 'l1' or 'l2'.
        path: 'straight' or 'resampled'; see ``mipkd_sr.distill.block_prior_mixer``. They were alike in our study;
            'straight' is the cheaper and Eq. 6 as written.
        student_probability: P(R = 1). The paper draws R from {0, 1} with no preference (Eq. 6): 0.5. 0.75: as good in
            our study of cost (experiments/studies/mipkd_cost), and the student's path costs less than the teacher's.
        drop_probability: Probability that a position's l_block is left out of a step; the paper drops none unless it
            says so. 0.75 cost nothing that could be told from noise in that study. Steps differ by one position at
            most, which bounds the memory. Without ``rescale`` a block_weight of 0.1 acts as 0.025 does without drops.
        rescale: Whether l_block is divided by ``1 - drop_probability``, so that its expectation is the undropped one.
        normalize: Whether each feature map is divided by its size, the mean of |F| (for 'l2' the root of the mean of
            F^2), before it is encoded, so that l_feat and l_ae are D(F_E, F_T) / D(F_T, 0); F_E takes the size of the
            network that it goes on through. The paper has no such division, without which l_feat grows with the inner
            image range of the networks: EDSR's student under BSRN gets thousands of times l_pix's gradient from it.

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
        encoder: str = 'separate',
        layer: str = 'conv',
        latent_width: int | str | None = None,
        latent_depth: int = 1,
        mask: str = 'random',
        teacher_ratio: float = 0.25,
        distance: str = 'l1',
        path: str = 'straight',
        student_probability: float = 0.75,
        drop_probability: float = 0.75,
        rescale: bool = False,
        normalize: bool = True,
    ) -> None:
        super().__init__(positions)
        _check_choice('encoder', encoder, ENCODERS)
        _check_choice('layer', layer, KERNELS)
        _check_choice('mask', mask, MASKS)
        _check_choice('distance', distance, DISTANCES)
        _check_choice('path', path, PATHS)
        _check_part('ae_until', ae_until)
        _check_part('teacher_ratio', teacher_ratio)
        _check_part('student_probability', student_probability)
        _check_part('drop_probability', drop_probability)
        if isinstance(latent_width, str):
            _check_choice('latent_width', latent_width, ('teacher',))
        elif latent_depth < 1 or (latent_width is not None and latent_width < 1):
            raise ValueError('latent_depth and latent_width must be at least 1')
        if rescale and drop_probability == 1:
            raise ValueError('rescale needs a drop_probability under 1: no l_block is left to rescale')
        self.feat_weight = feat_weight
        self.block_weight = block_weight
        self.ae_weight = ae_weight if encoder != 'none' else 0.0  # there is no auto-encoder
        self.ae_schedule = Schedule('window', end=ae_until)
        self.latent_width = latent_width
        self.mixer_options: dict[str, Any] = {
            'latent_depth': latent_depth,
            'encoder': encoder,
            'layer': layer,
            'mask': mask,
            'teacher_ratio': teacher_ratio,
        }
        self.distance = DISTANCES[distance]
        self.power = 1 if distance == 'l1' else 2
        self.path = path
        self.student_probability = student_probability
        self.drop_probability = drop_probability
        self.block_scale = 1 / (1 - drop_probability) if rescale else 1.0
        self.normalize = normalize

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Find the positions in both networks, and create a feature prior mixer for each."""
        super().attach(student, teacher, lq_size, scale)
        self.feature_mixers = nn.ModuleList(
            FeaturePriorMixer(width_s, width_t, self._latent_width(width_s, width_t), **self.mixer_options)
            for width_s, width_t in self.widths
        )
        self.block_mixer = BlockPriorMixer(self.unit_pairs, self.widths, self.path, self.student_probability)

    def _mixer(self, k: int) -> FeaturePriorMixer:
        return self.feature_mixers[k]  # type: ignore[return-value]  # what a ModuleList holds is a Module to mypy

    def _latent_width(self, width_s: int, width_t: int) -> int:
        if isinstance(self.latent_width, str):
            return width_t
        return self.latent_width or max(1, width_s // 2)

    def forward(self, state: StepState) -> dict[str, Tensor]:
        """See ``Objective.forward``.

        Logs each position's losses, and as ``path`` the part of its remaining path that ran in the student (with
        'straight': 1 student, 0 teacher), or -1 where it was dropped.
        """
        student, teacher = state.student['lq'], state.teacher['lq']
        with_ae = self.ae_weight > 0 and self.ae_schedule.factor(state.progress) > 0
        is_kept = kept_positions(len(self.unit_pairs), 1 - self.drop_probability, state.branch_rng)
        features = self.features(state)
        pairs = (
            sizes_taken(features, self.power) if self.normalize else [SizedPair(*maps, 1.0, 1.0) for maps in features]
        )
        sizes = [(pair.student_size, pair.teacher_size) for pair in pairs]
        names = ['l_feat', 'l_block', 'l_ae'] if with_ae else ['l_feat', 'l_block']
        losses = {name: student.sr.new_zeros(()) for name in names}
        for k, pair in enumerate(pairs):
            mixed, terms = _mix(self, k, *pair[:2], self._mixer(k).draw(pair.teacher, state.draws), with_ae)
            state.logs[f'mipkd/path_{k + 1}'] = -1.0
            if is_kept[k]:
                image, taken = self.block_mixer(k, mixed, student, teacher, state.branch_rng, sizes)
                terms['l_block'] = _block_loss(self, image, teacher.sr)
                state.logs[f'mipkd/path_{k + 1}'] = sum(taken) / len(taken)
                del image
            del mixed  # the next position needs its memory
            for name, value in terms.items():
                losses[name] = losses[name] + value
                state.logs[f'mipkd/{name}_{k + 1}'] = value.detach()
        return losses


sizes_taken = alone(sized)
"""``D(F / a, G / a) = D(F, G) / D(a, 0)`` if a is D's own mean of G."""


@region
def _mix(
    objective: MiPKDLoss, k: int, feature_s: Tensor, feature_t: Tensor, drawn: Tensor | None, with_ae: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """F_E, l_feat and, ``with_ae``, l_ae of a position."""
    mixed, restored = objective._mixer(k)(feature_s, feature_t, drawn, with_ae)
    terms = {'l_feat': objective.feat_weight * objective.distance(mixed, feature_t)}
    if with_ae:
        terms['l_ae'] = objective.ae_weight * objective.distance(restored, feature_t)
    return mixed, terms


@region
def _block_loss(objective: MiPKDLoss, image: Tensor, target: Tensor) -> Tensor:
    return objective.block_weight * objective.block_scale * objective.distance(image, target)


def kept_positions(count: int, probability: float, rng: torch.Generator) -> list[bool]:
    """Draw which of ``count`` positions a step keeps: each with ``probability``, and as even a number as there can be.

    With p the probability and u drawn uniformly from [0, 1), position k = 0, 1, ... is kept if

        floor((k + 1) p + u) > floor(k p + u)

    (systematic sampling). So a step keeps floor(count p) or ceil(count p) positions.
    """
    u = torch.rand((), generator=rng, dtype=torch.float64).item()
    steps = [math.floor(k * probability + u) for k in range(count + 1)]
    return [after > before for before, after in itertools.pairwise(steps)]


def _check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} '{value}' is not one of {', '.join(allowed)}")


def _check_part(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must be in [0, 1], not {value}')
