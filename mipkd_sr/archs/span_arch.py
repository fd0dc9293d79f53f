"""SPAN and its successor SPANF as head, body and tail.

Papers: Swift Parameter-free Attention Network for Efficient Super-Resolution, https://arxiv.org/abs/2311.12770 (SPAN,
the winner of NTIRE 2024's challenge on efficient SR), and the report of NTIRE 2025's, https://arxiv.org/abs/2504.10686
(SPANF, second there). The parameters have their authors' names, so the authors' checkpoints load.
"""

from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs.staged import Composed, mean_for


class Conv3XC(nn.Module):
    """A 3 x 3 convolution that trains as several and runs as one.

    In training mode it computes ``conv1x1(conv3x3(conv1x1(x))) + sk(x)``, where ``sk`` is 1 x 1 as well; without
    activations between them these are one 3 x 3 convolution, which evaluation mode uses. ``eval_conv`` is a copy of
    that one for those who read the file; a fused network has nothing else, as the checkpoints of the challenges.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        gain: Factor on the channels between the convolutions.
        fused: Whether to be the one 3 x 3 convolution alone, in training as well.
    """

    def __init__(self, width_in: int, width_out: int, gain: int = 2, fused: bool = False) -> None:
        super().__init__()
        self.fused = fused
        self.eval_conv = nn.Conv2d(width_in, width_out, 3, padding=1)
        if fused:
            return
        self.sk = nn.Conv2d(width_in, width_out, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, width_in * gain, 1),
            nn.Conv2d(width_in * gain, width_out * gain, 3),
            nn.Conv2d(width_out * gain, width_out, 1),
        )
        self.eval_conv.requires_grad_(False)
        self.register_state_dict_pre_hook(_refresh_copy)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The one convolution: a kernel, width_out x width_in x 3 x 3, and a bias, width_out; with gradients."""
        if self.fused:
            return self.eval_conv.weight, _bias(self.eval_conv)
        first, middle, last = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        with torch.autocast(first.weight.device.type, enabled=False):  # products of kernels need their digits
            before, after = first.weight[:, :, 0, 0], last.weight[:, :, 0, 0]
            kernel = torch.einsum('om,mnhw,ni->oihw', after, middle.weight, before)
            bias = after @ (middle.weight.sum((2, 3)) @ _bias(first) + _bias(middle)) + _bias(last)
            return kernel + F.pad(self.sk.weight, (1, 1, 1, 1)), bias + _bias(self.sk)

    def forward(self, feature: Tensor) -> Tensor:
        """B x width_in x H x W -> B x width_out x H x W."""
        if self.training and not self.fused:
            # The border is padded before the first convolution, whose bias it then has, as the one kernel's border has.
            return self.conv(F.pad(feature, (1, 1, 1, 1))) + self.sk(feature)
        kernel, bias = self.kernel_and_bias()
        return F.conv2d(feature, kernel, bias, padding=1)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@torch.no_grad()
def _refresh_copy(module: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Before a Conv3XC is saved: its copy of the one convolution becomes that of today."""
    assert isinstance(module, Conv3XC)
    kernel, bias = module.kernel_and_bias()
    module.eval_conv.weight.copy_(kernel)
    _bias(module.eval_conv).copy_(bias)


class AttentionBlock(nn.Module):
    """SPAN's block: three convolutions, and an attention without parameters.

    ``out = (c3 + x) * (sigmoid(c3) - 0.5)``, where ``c1``, ``c2``, ``c3`` are the outputs of the convolutions and SiLU
    lies between them. Where the widths differ there is no attention: ``out = c3``.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        fused: See ``Conv3XC``.
    """

    def __init__(self, width_in: int, width_out: int, fused: bool = False) -> None:
        super().__init__()
        self.c1_r = Conv3XC(width_in, width_out, fused=fused)
        self.c2_r = Conv3XC(width_out, width_out, fused=fused)
        self.c3_r = Conv3XC(width_out, width_out, fused=fused)
        self.has_attention = width_in == width_out

    def first(self, feature: Tensor) -> Tensor:
        """``silu(c1)``, B x width_out x H x W."""
        return F.silu(self.c1_r(feature))

    def rest(self, feature: Tensor, first: Tensor) -> Tensor:
        """The block's output from its input and ``first``."""
        third = self.c3_r(F.silu(self.c2_r(first)))
        return (third + feature) * (torch.sigmoid(third) - 0.5) if self.has_attention else third

    def forward(self, feature: Tensor) -> Tensor:
        """B x width_in x H x W -> B x width_out x H x W."""
        return self.rest(feature, self.first(feature))


class _StagedBlocks(Composed, nn.Module):
    """The body that SPAN and SPANF have alike: their blocks from the second on, under their authors' flat names."""

    depth: int

    def body(self, feature: Tensor, context: Any = None, start: int = 0, stop: int | None = None) -> Tensor:
        """Send ``feature`` (B x feature_channels x H x W) through the units ``start`` to ``stop``."""
        for unit in range(start, self.depth if stop is None else stop):
            feature = getattr(self, f'block_{unit + 2}')(feature)
        return feature


@ARCH_REGISTRY.register()
class SPAN(_StagedBlocks):
    """SPAN, of six attention blocks.

    Its end joins four feature maps: the first convolution's, the first block's, one of the middle of the sixth block,
    and that of the sixth block through a convolution. So the head ends after the first block, the body's units are the
    second to the fifth, and the sixth belongs to the tail. (The map of the middle of the sixth block is the one after
    SiLU, as in the authors' program, where SiLU works in place.)

    Published, with the convolutions fused: 48 channels 426 K parameters at x4 (411 K at x2), 52 channels 498 K (481 K);
    NTIRE 2024's winner has 28, 151 K.

    Args:
        num_in_ch: Channels of the input images.
        num_out_ch: Channels of the output images.
        feature_channels: Width.
        upscale: Scale.
        img_range: The network's inner range of the input; the output is in [0, 1] without more ado.
        rgb_mean: Mean of the training images, in [0, 1]; of images of other than three channels it is the grey value.
        fused: Whether each convolution is one alone, as in the checkpoints of the challenges.
    """

    mean: Tensor

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        feature_channels: int = 48,
        upscale: int = 4,
        img_range: float = 255.0,
        rgb_mean: tuple[float, float, float] = (0.4488, 0.4371, 0.4040),
        fused: bool = False,
    ) -> None:
        super().__init__()
        width = feature_channels
        self.upscale = upscale
        self.img_range = img_range
        mean = mean_for(torch.tensor(rgb_mean).view(1, -1, 1, 1), num_in_ch, 3)
        self.register_buffer('mean', mean, persistent=False)
        self.conv_1 = Conv3XC(num_in_ch, width, fused=fused)
        for number in range(1, 7):
            self.add_module(f'block_{number}', AttentionBlock(width, width, fused))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = Conv3XC(width, width, fused=fused)
        self.upsampler = nn.Sequential(
            nn.Conv2d(width, num_out_ch * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )
        self.depth = 4

    def head(self, lq: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """B x num_in_ch x H x W in [0, 1] -> the first block's map; the context is it and the first convolution's."""
        first = self.conv_1((lq - self.mean) * self.img_range)
        feature = self.get_submodule('block_1')(first)
        return feature, (first, feature)

    def tail(self, feature: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """The fifth block's map, B x feature_channels x H x W -> SR, B x num_out_ch x sH x sW."""
        block = self.get_submodule('block_6')
        assert isinstance(block, AttentionBlock)
        middle = block.first(feature)
        last = self.conv_2(block.rest(feature, middle))
        first, after_first_block = context
        return self.upsampler(self.conv_cat(torch.cat([first, last, after_first_block, middle], 1)))


@ARCH_REGISTRY.register()
class SPANF(_StagedBlocks):
    """SPANF, of five blocks; the first goes from the image to the width, and has no attention.

    Its end joins the first block's map, the last one's, and the image enlarged by a grouped convolution, which starts
    as the nearest neighbour. So the head ends after the first block, and the body's units are the other four.

    Published, with the convolutions fused: 32 channels, 148 K parameters at x4.

    Args:
        num_in_ch: Channels of the images.
        feature_channels: Width.
        upscale: Scale.
        fused: Whether each convolution is one alone, as in the checkpoint of the challenge.
    """

    def __init__(self, num_in_ch: int = 3, feature_channels: int = 32, upscale: int = 4, fused: bool = False) -> None:
        super().__init__()
        width, enlarged = feature_channels, num_in_ch * upscale**2
        self.upscale = upscale
        self.conv_near = nn.Conv2d(num_in_ch, enlarged, 3, padding=1, groups=num_in_ch, bias=False)
        with torch.no_grad():
            self.conv_near.weight.zero_()[:, :, 1, 1] = 1
        self.block_1 = AttentionBlock(num_in_ch, width, fused)
        for number in range(2, 6):
            self.add_module(f'block_{number}', AttentionBlock(width, width, fused))
        self.conv_cat = nn.Conv2d(2 * width + enlarged, width, 1)
        self.conv_2 = Conv3XC(width, enlarged, fused=fused)
        self.upsampler = nn.PixelShuffle(upscale)
        self.depth = 4

    def head(self, lq: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """B x num_in_ch x H x W in [0, 1] -> the first block's map; the context is it and the enlarged image."""
        feature = self.block_1(lq)
        return feature, (feature, self.conv_near(lq))

    def tail(self, feature: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """The body's output, B x feature_channels x H x W -> SR, B x num_in_ch x sH x sW."""
        after_first_block, enlarged = context
        joined = self.conv_cat(torch.cat([enlarged, feature, after_first_block], 1))
        return self.upsampler(self.conv_2(joined))
