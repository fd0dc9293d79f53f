"""An invertible augmentation for DUKD: red and blue change places."""

from mipkd_sr.distill.augmentations import AUGMENTATIONS, InvertibleAugmentation


@AUGMENTATIONS.register()
class SwappedColours(InvertibleAugmentation):
    def apply(self, images):
        return images.flip(1)

    invert = apply
