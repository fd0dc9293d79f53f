"""CSD: a contrastive loss in VGG19 features.

Paper: Towards Compact Single Image Super-Resolution via Contrastive Self-distillation, https://arxiv.org/abs/2105.11683
(Eq. 4). There the student is the first channels of the teacher itself, trained with it; here the teacher is frozen, as
for every method, and the student starts from such a slice (``path:init_network_g: teacher_slice``).
"""

import torch
import torchvision
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.archs.slicing import check_sliceable
from mipkd_sr.distill.objective import Objective, StepState
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.ranks import gather_batch, rank_and_size

LAYERS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
"""Weights of VGG19's relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, by their index in torchvision's features."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg19_features(weights_file: str | None) -> nn.Sequential:
    """VGG19's features up to relu5_1, from a file of torchvision's, or downloaded by torchvision."""
    if weights_file is None:
        try:
            weights = torchvision.models.VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except OSError as error:
            raise ValueError(
                f"VGG19's weights cannot be downloaded ({error}); give the path of torchvision's file as vgg_file"
            ) from None
    else:
        weights = load_file(weights_file)
    net = torchvision.models.vgg19(weights=None)
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError):
        raise ValueError(f"{weights_file} does not hold torchvision's VGG19") from None
    return net.features[: max(LAYERS) + 1]


@LOSS_REGISTRY.register()
class CSDLoss(Objective):
    """``l_csd = loss_weight * sum_l w_l * mean|f_l(T) - f_l(S)| / sum_n mean|f_l(N_n) - f_l(S)|``.

    f_l are VGG19's relu1_1 to relu5_1, w_l 1/32, 1/16, 1/8, 1/4 and 1; the negatives N_n of a sample are other samples'
    LR images, upsampled bicubically. Student and teacher must be of the same architecture and depth.

    The authors' program differs in three ways: it gives VGG19 the images in [0, 255] as they are, where we subtract
    ImageNet's mean and divide by its deviation, with which VGG19 was trained; every upsampled LR image of the batch is
    a negative of every sample, its own included, where we leave a sample's own image out, which is no negative of it;
    and it divides the batch's mean distances, where we divide each sample's and take the mean.

    Args:
        loss_weight: Weight of the loss. The authors' program weighs it 200 against losses of images in [0, 255]; for
            images in [0, 1] that is 200 / 255.
        negatives: Negatives a sample (paper: 10), at most the other samples of the batch.
        vgg_file: File of torchvision's VGG19 weights; None to let torchvision download them.

    Raises:
        ValueError: If VGG19's weights are not to be had.
    """

    needs_gt = False
    compares_outputs = True
    mean: Tensor
    std: Tensor

    def __init__(self, loss_weight: float = 200 / 255, negatives: int = 10, vgg_file: str | None = None) -> None:
        super().__init__()
        if negatives < 1:
            raise ValueError(f'negatives must be at least 1, not {negatives}')
        self.loss_weight = loss_weight
        self.negatives = negatives
        vgg = vgg19_features(vgg_file).eval().requires_grad_(False)
        for layer in vgg:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # the features before it are still needed
        self._vgg = [vgg]  # in a list: not this module's own, so in no checkpoint and no optimizer
        self._places: dict[int, tuple[Tensor, Tensor]] = {}
        self.register_buffer('mean', torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Check that the student is the teacher but for its width."""
        if teacher is not None:
            check_sliceable(teacher.state_dict(), student, 'CSD')

    def features(self, images: Tensor) -> list[Tensor]:
        """relu1_1 to relu5_1 of images (B x 3 x H x W, values in [0, 1])."""
        feature, kept = (images - self.mean) / self.std, []
        for index, layer in enumerate(self._vgg[0]):
            feature = layer(feature)
            if index in LAYERS:
                kept.append(feature)
        return kept

    def _negatives(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """The LR images that this rank's samples need as negatives: those before each in the batch of all ranks.

        Returns:
            The images that serve as negatives, N x 3 x H x W; and ``index[n, b]``, which of them is the n-th negative
            of sample b.
        """
        rank, size = rank_and_size()
        total = size * len(lq)
        if total < 2:
            raise ValueError('CSD takes its negatives from the other samples of a batch; use a batch of at least 2')
        if total not in self._places:
            wanted = [
                [(rank * len(lq) + sample - shift) % total for sample in range(len(lq))]
                for shift in range(1, min(self.negatives, total - 1) + 1)
            ]
            used = sorted({sample for row in wanted for sample in row})
            index = [[used.index(sample) for sample in row] for row in wanted]
            self._places[total] = torch.tensor(used, device=lq.device), torch.tensor(index, device=lq.device)
        used_places, index_places = self._places[total]
        return gather_batch(lq)[used_places], index_places

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        self._vgg[0].to(state.lq.device)
        sr, teacher_sr = state.student['lq'].sr, state.teacher['lq'].sr
        return {'l_csd': _contrast(self, sr, teacher_sr, *self._negatives(state.lq))}


@region
def _contrast(objective: CSDLoss, sr: Tensor, teacher_sr: Tensor, negatives: Tensor, index: Tensor) -> Tensor:
    upsampled = F.interpolate(negatives, size=sr.shape[-2:], mode='bicubic', align_corners=False)
    anchors = objective.features(sr)
    with torch.no_grad():
        positives, others = objective.features(teacher_sr), objective.features(upsampled)
    loss = sr.new_zeros(())
    for weight, anchor, positive, other in zip(LAYERS.values(), anchors, positives, others, strict=True):
        apart = [(other[row] - anchor).abs().mean((1, 2, 3)) for row in index.unbind()]
        together = (positive - anchor).abs().mean((1, 2, 3))
        loss = loss + weight * (together / (torch.stack(apart).sum(0) + 1e-7)).mean()
    return objective.loss_weight * loss
