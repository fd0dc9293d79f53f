"""IMDN (https://arxiv.org/abs/1909.11856) in the form of the NTIRE 2022 challenge, whose checkpoint it loads."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from my_sr.imdn_block import Block


@ARCH_REGISTRY.register()
class IMDN(nn.Module):
    def __init__(self, width: int = 64, depth: int = 8, upscale: int = 4):
        super().__init__()
        self.depth, shortcut = depth, nn.Module()
        shortcut.sub = nn.Sequential(*(Block(width) for _ in range(depth)), nn.Conv2d(width, width, 3, 1, 1))
        last = nn.Conv2d(width, 3 * upscale**2, 3, 1, 1)
        self.model = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), shortcut, last, nn.PixelShuffle(upscale))

    def head(self, lq):
        return (feature := self.model[0](lq)), feature

    def body(self, feature, context, start=0, stop=None):
        return self.model[1].sub[:-1][start:stop](feature)

    def tail(self, feature, context):
        return self.model[3](self.model[2](context + self.model[1].sub[-1](feature)))

    def forward(self, x):
        feature, context = self.head(x)
        return self.tail(self.body(feature, context), context)
