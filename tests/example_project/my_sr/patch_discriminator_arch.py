"""A small discriminator: for each place of an image, how real it looks."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class PatchDiscriminator(nn.Sequential):
    def __init__(self, width: int = 8):
        super().__init__(nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1))
