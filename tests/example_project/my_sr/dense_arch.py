"""A network whose tail needs the output of every block: what the tail will need travels in the feature map.

The tail's 1 x 1 convolution of all blocks' outputs, conv(cat(x_1, ..., x_n)), is the sum of w_i x_i. So the feature map
between units is cat(x_i, s_i), where s_i = s_(i-1) + w_i x_i; the tail takes s_n.
"""

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class DenseNet(nn.Module):
    def __init__(self, width: int = 16, depth: int = 4, upscale: int = 4):
        super().__init__()
        self.depth = depth
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(depth))
        self.fusion = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.last = nn.Sequential(nn.Conv2d(width, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))

    def head(self, lq):
        feature = self.first(lq)
        return torch.cat([feature, torch.zeros_like(feature)], 1), feature

    def body(self, feature, context, start=0, stop=None):
        x, total = feature.chunk(2, 1)
        for block, fusion in list(zip(self.blocks, self.fusion, strict=True))[start:stop]:
            x = x + block(x).relu()
            total = total + fusion(x)
        return torch.cat([x, total], 1)

    def tail(self, feature, context):
        return self.last(context + feature.chunk(2, 1)[1].relu())

    def forward(self, x):
        feature, context = self.head(x)
        return self.tail(self.body(feature, context), context)
