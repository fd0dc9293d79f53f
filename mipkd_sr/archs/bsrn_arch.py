"""BSRN as head, body and tail.

Paper: Blueprint Separable Residual Network for Efficient Image Super-Resolution, https://arxiv.org/abs/2205.05996.
Parameter names are those of its authors' checkpoints (xiaom233/BSRN), which BasicSR's loading reads as they are.
"""

from collections import OrderedDict

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs.staged import Composed

COPIES = 4
"""The LR image is given to the first layer so many times over."""
SMALLEST = 15
"""Side of the smallest LR image, in pixels: the spatial attention pools 7 x 7 after a stride of 2."""


class BlueprintConv(nn.Module):
    """BSConv-U (Section 3.1): a 1 x 1 convolution without bias, then a depthwise 3 x 3."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = nn.Conv2d(out_channels, out_channels, 3, stride, padding, groups=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """B x in_channels x H x W -> B x out_channels x H x W (with stride 1 and padding 1)."""
        return self.dw(self.pw(x))


class SpatialAttention(nn.Module):
    """Enhanced spatial attention with blueprint convolutions (Section 3.3)."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        width = num_feat // 4
        self.conv1 = nn.Conv2d(num_feat, width, 1)
        self.conv_f = nn.Conv2d(width, width, 1)
        self.conv_max = BlueprintConv(width, width)
        self.conv2 = BlueprintConv(width, width, stride=2, padding=0)
        self.conv3 = BlueprintConv(width, width)
        self.conv3_ = BlueprintConv(width, width)
        self.conv4 = nn.Conv2d(width, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B x num_feat x H x W, H and W at least ``SMALLEST`` -> the same shape."""
        reduced = self.conv1(x)
        pooled = F.max_pool2d(self.conv2(reduced), kernel_size=7, stride=3)
        pooled = self.conv3_(F.gelu(self.conv3(F.gelu(self.conv_max(pooled)))))
        spread = F.interpolate(pooled, x.shape[-2:], mode='bilinear', align_corners=False)
        return x * torch.sigmoid(self.conv4(spread + self.conv_f(reduced)))


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention: each channel is weighed by its standard deviation plus its mean."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        width = num_feat // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(num_feat, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, num_feat, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x num_feat x H x W -> the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean).pow(2).mean((2, 3), keepdim=True)
        deviation = variance.clamp(min=1e-38).sqrt()  # at 0, of a constant channel, a root has no finite gradient
        return x * self.conv_du(deviation + mean)


class DistillationBlock(nn.Module):
    """Efficient separable distillation block (ESDB, Section 3.2)."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        half = num_feat // 2
        self.c1_d, self.c2_d, self.c3_d = (nn.Conv2d(num_feat, half, 1) for _ in range(3))
        self.c1_r, self.c2_r, self.c3_r = (BlueprintConv(num_feat, num_feat) for _ in range(3))
        self.c4 = BlueprintConv(num_feat, half)
        self.c5 = nn.Conv2d(4 * half, num_feat, 1)
        self.esa = SpatialAttention(num_feat)
        self.cca = ContrastAttention(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        """B x num_feat x H x W -> the same shape."""
        kept, refined = [], x
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            kept.append(F.gelu(distil(refined)))
            refined = F.gelu(refine(refined) + refined)
        kept.append(F.gelu(self.c4(refined)))
        return self.cca(self.esa(self.c5(torch.cat(kept, 1)))) + x


@ARCH_REGISTRY.register()
class BSRN(Composed, nn.Module):
    """BSRN; its units are the distillation blocks.

    The tail needs the output of every block, so the feature map after unit i is all of them so far, one after the
    other: B x (i num_feat) x H x W. Unit i + 1 takes the last ``num_feat`` channels.

    Args:
        num_in_ch: Channels of the LR image.
        num_feat: Width.
        num_block: Number of blocks.
        num_out_ch: Channels of the SR image.
        upscale: Super-resolution factor.
    """

    def __init__(
        self, num_in_ch: int = 3, num_feat: int = 64, num_block: int = 8, num_out_ch: int = 3, upscale: int = 4
    ) -> None:
        super().__init__()
        self.num_feat = num_feat
        self.depth = num_block
        self.upscale = upscale
        self.fea_conv = BlueprintConv(COPIES * num_in_ch, num_feat)
        for number in range(1, num_block + 1):  # the names of the authors' checkpoints: B1, B2, ...
            self.add_module(f'B{number}', DistillationBlock(num_feat))
        self.c1 = nn.Conv2d(num_feat * num_block, num_feat, 1)
        self.c2 = BlueprintConv(num_feat, num_feat)
        last = nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, 1, 1)
        self.upsampler = nn.Sequential(OrderedDict(upsampleOneStep=nn.Sequential(last, nn.PixelShuffle(upscale))))

    def head(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """B x 3 x H x W in [0, 1] -> the first feature map, B x num_feat x H x W; the long skip is the same map.

        Raises:
            ValueError: If the image is smaller than ``SMALLEST`` pixels.
        """
        if min(lq.shape[-2:]) < SMALLEST:
            height, width = lq.shape[-2:]
            raise ValueError(f'BSRN needs LR images of at least {SMALLEST} x {SMALLEST} pixels, not {height} x {width}')
        feature = self.fea_conv(torch.cat([lq] * COPIES, 1))
        return feature, feature

    def body(self, feature: Tensor, context: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Send ``feature`` (B x max(start, 1) num_feat x H x W) through the blocks ``start`` to ``stop``."""
        for number in range(start, self.depth if stop is None else stop):
            output = self.get_submodule(f'B{number + 1}')(feature[:, -self.num_feat :])
            feature = torch.cat([feature, output], 1) if number else output
        return feature

    def tail(self, feature: Tensor, context: Tensor) -> Tensor:
        """Every block's output (B x depth num_feat x H x W) and the long skip -> SR, B x 3 x sH x sW."""
        return self.upsampler(self.c2(F.gelu(self.c1(feature))) + context)
