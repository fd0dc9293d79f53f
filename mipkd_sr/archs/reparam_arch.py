"""A plain network for CPUs, phones and NPUs, as head, body and tail: convolutions and activations, one after the other.

It is of the family of SESR (https://arxiv.org/abs/2103.09404), ECBSR (https://doi.org/10.1145/3474085.3475291), ABPN
(https://arxiv.org/abs/2105.09750) and ETDS (https://openaccess.thecvf.com/CVPR2023, Equivalent Transformation and Dual
Stream Network Construction for Mobile Image Super-Resolution).
"""

from collections.abc import Callable
from functools import partial

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs.reparam import ExpandedConv
from mipkd_sr.archs.staged import Body

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    'prelu': nn.PReLU,
    'lrelu': lambda width: nn.LeakyReLU(0.1, inplace=True),
    'relu': lambda width: nn.ReLU(inplace=True),
}


def _bilinear(scale: int) -> Tensor:
    """What enlarging bilinearly adds to a repeated pixel, as filters of 3 x 3: scale^2 x 1 x 3 x 3."""
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[0, 0, 2, 2] = 1
    spread = F.interpolate(impulse, scale_factor=scale, mode='bilinear', align_corners=False)
    filters = F.pixel_unshuffle(spread, scale)[0, :, None, 1:4, 1:4].flip(-2, -1).contiguous()
    filters[:, :, 1, 1] -= 1
    return filters


@ARCH_REGISTRY.register()
class ReparamSR(nn.Module):
    """Convolutions in a row, the image beside them, and one pixel shuffle.

    Each convolution is learned as a product (``ExpandedConv``), and runs, after ``mipkd_sr.archs.reparam.fuse`` or with
    ``fused``, as one. What the convolutions give is added to the image, each of whose pixels is repeated
    (ABPN's anchor). A unit of the body is a convolution and its activation.

    Args:
        num_in_ch: Channels of the images.
        num_feat: Width.
        num_block: Convolutions between the first and the last, the units of the body.
        upscale: Scale.
        activation: 'prelu' (a slope for each channel), 'lrelu' (a slope of 0.1) or 'relu'.
        end_kernel: Side of the first and the last kernel: 3, or 5 as SESR's.
        long_skip: Whether the head's output is added to the body's, as in SESR.
        luma: Whether the convolutions give one channel, which is added to all of the image's, so that they tell of
            brightness alone; colour is enlarged by learned filters of 3 x 3, which start as
            bilinear ones and cost next to nothing.
        expanded: Channels of the product that a kernel is learned as; 0 for plain kernels.
        fused: Whether each convolution is one alone, as in the files that come with the package.

    Raises:
        ValueError: If the activation is not known.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_feat: int = 16,
        num_block: int = 5,
        upscale: int = 2,
        activation: str = 'prelu',
        end_kernel: int = 3,
        long_skip: bool = False,
        luma: bool = False,
        expanded: int = 256,
        fused: bool = False,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation is {activation!r}; give one of {", ".join(ACTIVATIONS)}')
        super().__init__()
        self.upscale = upscale
        self.depth = num_block
        self.long_skip = long_skip
        act, conv = ACTIVATIONS[activation], partial(ExpandedConv, expanded=expanded, fused=fused)
        self.conv_first = nn.Sequential(conv(num_in_ch, num_feat, end_kernel), act(num_feat))
        self.body = Body(
            *(nn.Sequential(conv(num_feat, num_feat, add_input=True), act(num_feat)) for _ in range(num_block))
        )
        self.conv_last = conv(num_feat, (1 if luma else num_in_ch) * upscale**2, end_kernel)
        if not fused:
            with torch.no_grad():  # the first images are nearly the enlarged LR images
                self.conv_last.weight.mul_(0.1)
        self.colour: nn.Conv2d | None = None
        if luma:
            self.colour = nn.Conv2d(num_in_ch, num_in_ch * upscale**2, 3, padding=1, groups=num_in_ch, bias=False)
            with torch.no_grad():
                self.colour.weight.copy_(_bilinear(upscale).repeat(num_in_ch, 1, 1, 1))

    def head(self, lq: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """B x num_in_ch x H x W in [0, 1] -> the first feature map, B x num_feat x H x W; the context is both."""
        feature = self.conv_first(lq)
        return feature, (lq, feature)

    def tail(self, feature: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """The body's output, B x num_feat x H x W -> SR, B x num_in_ch x sH x sW."""
        lq, first = context
        details = self.conv_last(feature + first if self.long_skip else feature)
        if self.colour is not None:
            details = details.repeat(1, lq.shape[1], 1, 1) + self.colour(lq)
        return F.pixel_shuffle(details + lq.repeat_interleave(self.upscale**2, 1), self.upscale)

    def forward(self, lq: Tensor) -> Tensor:
        """B x num_in_ch x H x W in [0, 1] -> B x num_in_ch x sH x sW."""
        feature, context = self.head(lq)
        return self.tail(self.body(feature, context), context)
