"""MTKD's wavelet loss: the student's output and the teacher's, compared band by band.

Paper: MTKD: Multi-Teacher Knowledge Distillation for Image Super-Resolution, https://arxiv.org/abs/2404.09571.
"""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.objective import Objective, StepState
from mipkd_sr.distill.wavelets import haar_bands


@LOSS_REGISTRY.register()
class WaveletLoss(Objective):
    """``l_wavelet = loss_weight * (sum_l mean|H_l(S) - H_l(T)| + mean|L(S) - L(T)|)``.

    H_l are the high bands of level l of Haar's wavelets, L is the low band that is left; every band of every sample
    counts. The authors' program takes the number of the last level as an index into the low band, which has no levels
    but samples: of a batch it compares one sample's low band alone.

    Args:
        loss_weight: Weight of the loss.
        levels: Levels of the transform; 4 is the default of the authors' program. ``2 ** levels`` must divide the HR
            patch's side.

    Raises:
        ValueError: If there is no level.
    """

    needs_gt = False
    compares_outputs = True
    is_pure = True

    def __init__(self, loss_weight: float = 1.0, levels: int = 4) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f'levels must be at least 1, not {levels}')
        self.loss_weight = loss_weight
        self.levels = levels

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Check that the HR patch divides into the last level's squares."""
        if (lq_size * scale) % 2**self.levels:
            raise ValueError(f'{self.levels} levels need an HR patch that {2**self.levels} divides: {lq_size * scale}')

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        student, teacher = (haar_bands(run['lq'].sr, self.levels) for run in (state.student, state.teacher))
        terms = [F.l1_loss(own, wanted) for own, wanted in zip(student, teacher, strict=True)]
        return {'l_wavelet': self.loss_weight * sum(terms[1:], terms[0])}
