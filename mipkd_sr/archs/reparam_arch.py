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

from mipkd_sr.archs.staged import Body, Composed

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


class ExpandedConv(nn.Module):
    """SESR's linear block: a k x k convolution to many channels, a 1 x 1 to the width, and perhaps the input added.

    Linear layers in a row are one linear layer. So this is one convolution, whose kernel is learned as a product, which
    Adam finds easier. The kernels are multiplied, not the feature maps: a step costs hardly more than that of a plain
    convolution. Paper: Collapsible Linear Blocks for Super-Efficient Super Resolution,
    https://arxiv.org/abs/2103.09404, Section 3. The block's first bias would be one with the second, and is left out.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        side: Side of the kernel, odd.
        expanded: Channels between the two convolutions.
        add_input: Whether the input is added to the output, by ones in the kernel; the widths must be the same.
    """

    identity: Tensor

    def __init__(self, width_in: int, width_out: int, side: int = 3, expanded: int = 256, add_input: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(expanded, width_in, side, side))
        self.squeeze = nn.Parameter(torch.empty(width_out, expanded))
        self.bias = nn.Parameter(torch.zeros(width_out))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.squeeze)
        identity = torch.zeros(width_out, width_in, side, side)
        if add_input:
            nn.init.dirac_(identity)
        self.register_buffer('identity', identity, persistent=False)

    def kernel(self) -> Tensor:
        """The one kernel, width_out x width_in x side x side; with gradients."""
        width_in, side = self.weight.shape[1:3]
        with torch.autocast(self.weight.device.type, enabled=False):  # products need their digits
            rows = self.weight.permute(0, 2, 3, 1).flatten(1)  # no copy in the channels-last format
            product = (self.squeeze @ rows).view(-1, side, side, width_in).permute(0, 3, 1, 2)
            return product + self.identity

    def forward(self, feature: Tensor) -> Tensor:
        """B x width_in x H x W -> B x width_out x H x W."""
        return F.conv2d(feature, self.kernel(), self.bias, padding=self.weight.shape[-1] // 2)

    @torch.no_grad()
    def fused(self) -> nn.Conv2d:
        """The one convolution."""
        kernel = self.kernel()
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], padding=kernel.shape[2] // 2).to(kernel)
        conv.weight.copy_(kernel)
        assert conv.bias is not None
        conv.bias.copy_(self.bias)
        return conv.train(self.training)


def _plain(width_in: int, width_out: int, side: int = 3, add_input: bool = False) -> nn.Conv2d:
    """A convolution that trains as it runs; where the input is added, it starts as the identity nearly."""
    conv = nn.Conv2d(width_in, width_out, side, padding=side // 2)
    assert conv.bias is not None
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    if add_input:
        with torch.no_grad():
            conv.weight += nn.init.dirac_(torch.empty_like(conv.weight))
    return conv


@ARCH_REGISTRY.register()
class ReparamSR(Composed, nn.Module):
    """Convolutions in a row, the image beside them, and one pixel shuffle.

    Each convolution is learned as a product (``ExpandedConv``), and is one after ``fuse``. What the convolutions give
    is added to the image, each of whose pixels is repeated (ABPN's anchor). A unit of the body is a convolution and
    its activation.

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
        fused: Whether to be what ``fuse`` makes of it, as the files that come with the package are.

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
        act = ACTIVATIONS[activation]
        conv = _plain if fused or not expanded else partial(ExpandedConv, expanded=expanded)
        self.conv_first = nn.Sequential(conv(num_in_ch, num_feat, end_kernel), act(num_feat))
        self.body = Body(
            *(nn.Sequential(conv(num_feat, num_feat, add_input=True), act(num_feat)) for _ in range(num_block))
        )
        self.conv_last = conv(num_feat, (1 if luma else num_in_ch) * upscale**2, end_kernel)
        with torch.no_grad():  # the first images are nearly the enlarged LR images
            self.conv_last.weight.mul_(0.1)
        self.shuffle = nn.PixelShuffle(upscale)
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
        if self.colour is not None:  # small values first: at 8 bits they have the smaller steps
            details = torch.cat([details] * lq.shape[1], 1) + self.colour(lq)
        image = F.interpolate(lq, scale_factor=self.upscale, mode='nearest')  # in single precision, in autocast as well
        return image + self.shuffle(details)

    @torch.no_grad()
    def fuse(self) -> None:
        """Make each convolution that is learned as a product one, in place. The output stays, to rounding."""
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, ExpandedConv):
                    setattr(parent, name, child.fused())
