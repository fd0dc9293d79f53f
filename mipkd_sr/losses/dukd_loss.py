"""DUKD: Data Upcycling Knowledge Distillation for Image Super-Resolution.

Paper: https://arxiv.org/abs/2309.14162. Its authors' program, https://github.com/yun224/DUKD, differs from it; where
that matters an argument here says so, and options/train/dukd_authors has its settings.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.archs.staged_check import check_output
from mipkd_sr.distill.augmentations import RandomComposition
from mipkd_sr.distill.objective import Objective, StepState, View
from mipkd_sr.distill.zooming import zoom_in_grid, zoom_in_hardest, zoom_in_random, zoom_out
from mipkd_sr.runtime.errors import sentence
from mipkd_sr.runtime.ranks import BatchDraws

ALL_AUGMENTATIONS = {'HorizontalFlip': 0.5, 'VerticalFlip': 0.5, 'Rotation90': 0.5, 'ColorInversion': 0.5}
CROPS = ('random', 'grid', 'hardest')
ZOOMS = ('zoom_in', 'zoom_out')


def check_window(net: nn.Module, size: int, scale: int) -> None:
    """Refuse patches that a network does not take, and those that are smaller than a window of SwinIR."""
    window = getattr(net, 'window_size', 0)
    if size < window:
        name = type(net).__name__
        raise ValueError(
            f'zoom-out makes patches of {size} x {size}, under the window of {window} of {name}; set zoom_out to false '
            'or take larger patches'
        )
    try:
        check_output(net, scale, size)
    except ValueError as error:
        reason = sentence(error).rstrip('.')
        raise ValueError(f'zoom-out makes patches of {size} x {size}; {reason}; set zoom_out to false') from None


def augmented_view(
    composition: RandomComposition, images: Tensor, for_teacher: Tensor | None, draws: BatchDraws
) -> View:
    """A view whose images (B x 3 x H x H) the student sees through a fresh draw of the augmentations."""
    choice = composition.draw(len(images), draws)
    return View(composition.apply(images, choice), for_teacher, partial(composition.invert, choice=choice))


@LOSS_REGISTRY.register()
class DUKDLoss(Objective):
    """The teacher labels zoomed-in and zoomed-out versions of the training images.

    * zoom-in ``zi``: a crop of the HR patch of the LR patch's size; ``l_zoom_in = L1(inv(S(aug(zi))), T(zi))``;
    * zoom-out ``zo``: the LR patch downsampled by the scale; ``l_zoom_out = L1(S(zo), T(zo))``.

    Their sum is the paper's L_dukd (Eq. 3). ``aug`` is a random composition of invertible augmentations, drawn for each
    sample; ``inv`` undoes it on the student's output.

    Args:
        loss_weight: Weight of both (paper: 1).
        zoom_in: Whether to zoom in.
        zoom_out: Whether to zoom out. The paper does not "when training SwinIR models" (Section 4.1), and our recipes
            with a SwinIR as the student do not; where SwinIR only teaches, they do.
        crop: 'random'; 'grid': one of the s x s tiles of the HR patch, as in the authors' program; or 'hardest': where
            the teacher's error is largest (see ``zoom_in_hardest`` for its cost).
        crops: Zoomed-in crops of each patch; on a grid they are different tiles. The authors' program has 1, and 2 for
            EDSR at x2.
        augmentations: Probability of each augmentation by its registered name, in the order of application; the
            paper's four at 0.5 if None, none if empty. The paper states no probability: 0.5 makes every composition
            equally likely; the authors' program has 0.3, and a transposition where we have a quarter turn.
        augment: What they are applied to: 'zoom_in', 'zoom_out', or both, as a list. The paper applies them to "the
            upcycled data", which is both, as in options/train/dukd_paper and the papers' tables; the authors' program
            to zoom-in alone, which is the default.
        label_weight: Weight of ``l_zoom_out_label = L1(S(zo), LR)``: the LR patch is the zoomed-out patch's true label.
            The authors' program has this term, the paper's Eq. 3 has not; 0 leaves it out.

    Raises:
        ValueError: If an argument is out of its range.
    """

    is_pure = True
    needs_gt = False  # but zoom_in does, see _zoom_in

    def __init__(
        self,
        loss_weight: float = 1.0,
        zoom_in: bool = True,
        zoom_out: bool = True,
        crop: str = 'random',
        crops: int = 1,
        augmentations: Mapping[str, float] | None = None,
        augment: Sequence[str] = ('zoom_in',),
        label_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not zoom_in and not zoom_out:
            raise ValueError('zoom_in and zoom_out are both false: nothing is left to learn from')
        if crop not in CROPS:
            raise ValueError(f"crop '{crop}' is not one of {', '.join(CROPS)}")
        if crops < 1 or (crop == 'hardest' and crops > 1):
            raise ValueError(f'crops must be at least 1, and 1 for the hardest crop, not {crops}')
        if unknown := set(augment) - set(ZOOMS):
            raise ValueError(f'augment takes {" and ".join(ZOOMS)}, not {", ".join(sorted(unknown))}')
        if label_weight and not zoom_out:
            raise ValueError('label_weight is for zoom_out, which is false')
        self.loss_weight = loss_weight
        self.zoom_in = zoom_in
        self.zoom_out = zoom_out
        self.crop = crop
        self.crops = crops
        self.composition = RandomComposition(ALL_AUGMENTATIONS if augmentations is None else augmentations)
        self.augment = tuple(augment)
        self.label_weight = label_weight
        self.needs_teacher_first = zoom_in and crop == 'hardest'
        self.scale = 0

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Check that the zoomed-out patches fit the networks."""
        self.scale = scale
        if self.crop == 'grid' and self.crops > scale**2:
            raise ValueError(f'crops is {self.crops}, and a grid has {scale} x {scale} tiles at x{scale}; take fewer')
        if self.zoom_out:
            if lq_size % scale:
                raise ValueError(f'zoom_out needs LR patches that the scale divides: {lq_size} / {scale}')
            for net in (student, teacher):
                if net is not None:
                    check_window(net, lq_size // scale, scale)

    def views(self, lq: Tensor, gt: Tensor, teacher_sr: Tensor | None, draws: BatchDraws) -> dict[str, View]:
        """The zoomed-in and zoomed-out patches, augmented for the student."""
        views = {}
        own = draws if self.has_gt is None else draws.of_samples(self.has_gt)
        zoomed_in = self._zoom_in(lq, gt, teacher_sr, own) if self.zoom_in else []
        for number, images in enumerate(zoomed_in):
            name = f'zoom_in_{number}'
            views[name] = self._view(name, images, own)
        if self.zoom_out:
            views['zoom_out'] = self._view('zoom_out', zoom_out(lq, self.scale), draws)
        return views

    def _zoom_in(self, lq: Tensor, gt: Tensor, teacher_sr: Tensor | None, draws: BatchDraws) -> list[Tensor]:
        height, width = lq.shape[-2:]
        if self.has_gt is not None:  # the others have no HR to zoom into
            if not self.has_gt.any():
                return []
            gt = gt[self.has_gt]
            teacher_sr = None if teacher_sr is None else teacher_sr[self.has_gt]
        if self.crop == 'grid':
            return zoom_in_grid(gt, self.scale, self.crops, draws)
        if teacher_sr is not None and self.crop == 'hardest':
            return [zoom_in_hardest(gt, teacher_sr, height, width)]
        return [zoom_in_random(gt, height, width, draws) for _ in range(self.crops)]

    def _view(self, name: str, images: Tensor, draws: BatchDraws) -> View:
        if not name.startswith(self.augment):
            return View(images, images)
        return augmented_view(self.composition, images, images, draws)

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for name in [name for name in state.student if name.startswith(ZOOMS)]:
            sr = state.student[name].sr
            loss = self.loss_weight * F.l1_loss(sr, state.teacher[name].sr)
            key = 'l_zoom_in' if name.startswith('zoom_in') else 'l_zoom_out'
            share = len(sr) / len(state.lq)  # of the samples that have HR
            weight = share / self.crops if key == 'l_zoom_in' else 1.0
            losses[key] = losses[key] + weight * loss if key in losses else weight * loss
            if name == 'zoom_out' and self.label_weight:
                losses['l_zoom_out_label'] = self.label_weight * F.l1_loss(sr, state.lq)
        return losses


@LOSS_REGISTRY.register()
class AugmentationLoss(Objective):
    """DUKD's augmentations without its teacher, as a control: ``l_aug = loss_weight * L1(inv(S(aug(LR))), HR)``.

    Args:
        loss_weight: Weight of the loss.
        augmentations: See ``DUKDLoss``.
    """

    needs_teacher = False
    is_pure = True

    def __init__(self, loss_weight: float = 1.0, augmentations: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.composition = RandomComposition(ALL_AUGMENTATIONS if augmentations is None else augmentations)

    def views(self, lq: Tensor, gt: Tensor, teacher_sr: Tensor | None, draws: BatchDraws) -> dict[str, View]:
        """The LR patches, augmented, for the student alone."""
        return {'augmented': augmented_view(self.composition, lq, None, draws)}

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        return {'l_aug': self.loss_weight * F.l1_loss(state.student['augmented'].sr, state.gt)}
