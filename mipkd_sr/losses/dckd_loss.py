"""DCKD: a contrastive loss whose negatives come from the student's own history, and a loss of distributions.

Paper: Dynamic Contrastive Knowledge Distillation for Efficient Image Restoration, https://arxiv.org/abs/2412.08939.
Its weights and settings are those of the authors' program, https://github.com/super-SSS/DCKD, unless said otherwise.
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from typing_extensions import override

from mipkd_sr.archs.vqgan import VQGAN, load_vqgan
from mipkd_sr.distill.objective import Objective, StepState
from mipkd_sr.distill.student_history import History
from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.ranks import BatchDraws

LEVEL_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of VQGAN's five levels, from the finest on."""
NOISE = (1 / 255, 30 / 255)
"""Least and greatest standard deviation of the noise on the LR images of which the history makes negatives."""


class VQGANObjective(Objective):
    """What both have in common: VQGAN, frozen, in no checkpoint and no optimizer.

    Args:
        vqgan_file: Checkpoint of taming-transformers' ``vqgan_imagenet_f16_1024``.
    """

    needs_gt = False
    compares_outputs = True

    def __init__(self, vqgan_file: str | None) -> None:
        super().__init__()
        self._vqgan = [load_vqgan(vqgan_file)]  # in a list: not this module's own

    def vqgan(self, device: torch.device) -> VQGAN:
        """VQGAN, on the device."""
        return self._vqgan[0].to(device)


def for_vqgan(images: Tensor) -> Tensor:
    """Images in [0, 1] as VQGAN was trained with, in [-1, 1]; the authors' program leaves them in [0, 1]."""
    return 2 * images - 1


@LOSS_REGISTRY.register()
class DynamicContrastiveLoss(VQGANObjective):
    """Draws the student's output towards the teacher's and away from what the student was.

    For each sample, and then their mean::

        l_dcl = loss_weight * sum_l w_l * mean|f_l(S) - f_l(T)| / (sum_n mean|f_l(S) - f_l(N_n)| + 1e-7)

    f_l is the first residual block of VQGAN's level l, w_l are 1/32, 1/16, 1/8, 1/4 and 1. The negatives are
    ``N_0 = H(LR)`` and ``N_n = H(clip(LR + noise))``, where H is the history: a network that follows the student (its
    moving average where there is one) from time to time, ``H = decay * H + (1 - decay) * S``. The noise is Gaussian,
    its standard deviation drawn from [1, 30] / 255 for each sample, grey for half of them.

    The authors' program divides means over the batch; here each sample is divided by itself, as the equation is written
    for one image: so several processes compute what one computes.

    Args:
        loss_weight: Weight of the loss.
        negatives: Noisy negatives; one without noise is always there.
        decay: How much of the history stays when it follows.
        intervals: Steps between its moves: the first number in the first ``interval_length`` steps of the training,
            the second in the next, ...; the last goes on to the end.
        interval_length: See ``intervals``.
        vqgan_file: Checkpoint of taming-transformers' ``vqgan_imagenet_f16_1024``.

    Raises:
        ValueError: If an argument is out of its range, or VQGAN's weights are not to be had.
    """

    def __init__(
        self,
        loss_weight: float = 0.1,
        negatives: int = 4,
        decay: float = 0.1,
        intervals: Sequence[int] = (1000, 2000, 3000),
        interval_length: int = 100_000,
        vqgan_file: str | None = None,
    ) -> None:
        super().__init__(vqgan_file)
        if negatives < 0:
            raise ValueError(f'negatives must not be negative, not {negatives}')
        if not intervals or min(*intervals, interval_length) < 1:
            raise ValueError('intervals must name at least one number, and they and interval_length must be at least 1')
        self.loss_weight = loss_weight
        self.negatives = negatives
        self.decay = decay
        self.intervals = tuple(intervals)
        self.interval_length = interval_length

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Begin the history with the student as it is."""
        self.history = History(student, self.decay)

    def after_step(self, student: nn.Module, iteration: int) -> None:
        """Let the history follow, when it is time."""
        phase = min((iteration - 1) // self.interval_length, len(self.intervals) - 1)
        if iteration % self.intervals[phase] == 0:
            self.history.follow(student)

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        vqgan = self.vqgan(state.lq.device)
        noisy = [add_noise(state.lq, state.draws) for _ in range(self.negatives)]
        past = self.history(torch.cat([state.lq, *noisy]))
        loss = _contrast(vqgan, state.student['lq'].sr, state.teacher['lq'].sr, past, state.lq.dtype)
        return {'l_dcl': self.loss_weight * loss}


@region
def _contrast(vqgan: VQGAN, sr: Tensor, teacher_sr: Tensor, past: Tensor, dtype: torch.dtype) -> Tensor:
    anchors = vqgan.features(for_vqgan(sr))
    with torch.no_grad():
        others = vqgan.features(for_vqgan(torch.cat([teacher_sr.to(dtype), past.to(dtype)])))
    loss = torch.zeros((), dtype=dtype, device=sr.device)
    for weight, anchor, other in zip(LEVEL_WEIGHTS, anchors, others, strict=True):
        apart = torch.stack([(anchor - image).abs().mean((1, 2, 3)) for image in other.split(len(anchor))])
        loss = loss + weight * (apart[0] / (apart[1:].sum(0) + 1e-7)).mean()
    return loss


def add_noise(lq: Tensor, draws: BatchDraws) -> Tensor:
    """LR images (B x 3 x H x W, [0, 1]) with the noise of ``DynamicContrastiveLoss``, clipped to [0, 1]."""
    size = len(lq)
    low, high = NOISE
    sigma = (low + (high - low) * draws.uniform(size)).view(-1, 1, 1, 1)
    is_grey = (draws.uniform(size) < 0.5).view(-1, 1, 1, 1)
    noise = draws.normal(size, *lq.shape[1:])
    noise = torch.where(is_grey, noise[:, :1], noise)
    return (lq + sigma * noise).clamp(0, 1).to(lq.dtype)


@LOSS_REGISTRY.register()
class DistributionMappingLoss(VQGANObjective):
    """Compares the teacher's and the student's images as distributions over a codebook's words, by cross entropy.

    ``l_dm = -loss_weight * mean_z sum_j p_T(j) log p_S(j)``, with ``p(j) = softmax_j(-|z - e_j|^2)``

    for each place z of VQGAN's latent map and each word e_j. The authors' program gives p_S to a function that takes
    its softmax once more, which nearly levels it (of 1024 numbers in [0, 1]); here the cross entropy is that of p_S
    itself.

    Args:
        loss_weight: Weight of the loss.
        vqgan_file: Checkpoint of taming-transformers' ``vqgan_imagenet_f16_1024``.

    Raises:
        ValueError: If VQGAN's weights are not to be had.
    """

    def __init__(self, loss_weight: float = 0.001, vqgan_file: str | None = None) -> None:
        super().__init__(vqgan_file)
        self.loss_weight = loss_weight

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        found = _cross_entropy(self.vqgan(state.lq.device), state.student['lq'].sr, state.teacher['lq'].sr)
        return {'l_dm': -self.loss_weight * found}


@region
def _cross_entropy(vqgan: VQGAN, sr: Tensor, teacher_sr: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = vqgan.log_distribution(for_vqgan(teacher_sr)).exp()
    return (wanted * vqgan.log_distribution(for_vqgan(sr))).sum(-1).mean()
