"""Invertible augmentations (DUKD, https://arxiv.org/abs/2309.14162, Section 3.3: label consistency).

They are applied to the student's input and undone on its output. So the teacher's output for the unchanged input stays
the label. Register one of your own to use it::

    @AUGMENTATIONS.register()
    class Transpose(InvertibleAugmentation): ...
"""

from collections.abc import Mapping, Sequence

import torch
from basicsr.utils.registry import Registry
from torch import Tensor
from typing_extensions import override

from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.ranks import BatchDraws

AUGMENTATIONS = Registry('augmentation')
"""Invertible augmentations by their names in option files."""


class InvertibleAugmentation:
    """A change of images that ``invert`` undoes, whatever their size."""

    def apply(self, images: Tensor) -> Tensor:
        """Change images, B x 3 x H x W, values in [0, 1]; B, 3 and the set {H, W} stay."""
        raise NotImplementedError

    def invert(self, images: Tensor) -> Tensor:
        """Undo ``apply``; also on images that a network has made larger."""
        raise NotImplementedError


@AUGMENTATIONS.register()
class HorizontalFlip(InvertibleAugmentation):
    """Left and right change places."""

    @override
    def apply(self, images: Tensor) -> Tensor:
        return images.flip(-1)

    invert = apply


@AUGMENTATIONS.register()
class VerticalFlip(InvertibleAugmentation):
    """Top and bottom change places."""

    @override
    def apply(self, images: Tensor) -> Tensor:
        return images.flip(-2)

    invert = apply


@AUGMENTATIONS.register()
class Rotation90(InvertibleAugmentation):
    """A quarter turn to the left; with the flips it makes all eight symmetries of a square."""

    @override
    def apply(self, images: Tensor) -> Tensor:
        return images.rot90(1, (-2, -1))

    @override
    def invert(self, images: Tensor) -> Tensor:
        return images.rot90(-1, (-2, -1))


@AUGMENTATIONS.register()
class Transposition(InvertibleAugmentation):
    """Rows and columns change places. DUKD's authors' program has it in place of the quarter turn."""

    @override
    def apply(self, images: Tensor) -> Tensor:
        return images.transpose(-2, -1)

    invert = apply


@AUGMENTATIONS.register()
class ColorInversion(InvertibleAugmentation):
    """``1 - x``. Undoing it is exact for multiples of 2^-24; for other values it errs by at most 6e-8."""

    @override
    def apply(self, images: Tensor) -> Tensor:
        return 1 - images

    invert = apply


class RandomComposition:
    """Several augmentations, each on some samples of a batch, and their inverse.

    ``(f3 o f2 o f1)^-1 = f1^-1 o f2^-1 o f3^-1``: the inverses run in reverse order.

    Args:
        probabilities: For each augmentation's registered name, the probability that it is applied to a sample; they are
            applied in this order.

    Raises:
        ValueError: If a name is not registered, a probability not in [0, 1], or an augmentation not undone by its
            ``invert``.
    """

    def __init__(self, probabilities: Mapping[str, float]) -> None:
        for name, probability in probabilities.items():
            if name not in AUGMENTATIONS:
                raise ValueError(f"there is no augmentation '{name}'; there are: {', '.join(AUGMENTATIONS.keys())}")
            if not 0 <= probability <= 1:
                raise ValueError(f'the probability of {name} must be in [0, 1], not {probability}')
        self.parts = [(AUGMENTATIONS.get(name)(), probability) for name, probability in probabilities.items()]
        images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        for name, (part, _) in zip(probabilities, self.parts, strict=True):
            restored = part.invert(part.apply(images.clone()))
            if restored.shape != images.shape or not torch.allclose(restored, images, atol=1e-5):
                raise ValueError(f'the augmentation {name} is not undone by its invert')

    def draw(self, batch: int, draws: BatchDraws) -> list[Tensor]:
        """For each augmentation, whether to apply it to each of B samples: B times true or false."""
        return [draws.uniform(batch) < probability for _, probability in self.parts]

    @region
    def apply(self, images: Tensor, choice: Sequence[Tensor]) -> Tensor:
        """Apply them to the samples of ``choice``.

        Args:
            images: B x 3 x H x H, values in [0, 1]; square, so that turned samples and others fit in one tensor.
            choice: From ``draw``.
        """
        for (part, _), chosen in zip(self.parts, choice, strict=True):
            images = torch.where(chosen[:, None, None, None], part.apply(images), images)
        return images

    @region
    def invert(self, images: Tensor, choice: Sequence[Tensor]) -> Tensor:
        """Undo ``apply`` on images of any (square) size, such as the student's output."""
        for (part, _), chosen in zip(reversed(self.parts), reversed(choice), strict=True):
            images = torch.where(chosen[:, None, None, None], part.invert(images), images)
        return images
