"""What sizes of image a network takes, and padding to them; pixel shuffles as devices like them."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs.probing import first_convolution

MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
LARGEST = 128
"""Greatest least side of an LR image that is looked for."""


class Limits(NamedTuple):
    """A network's scale, and the sides of LR images that it takes: ``least`` or more, multiples of ``multiple``.

    With ``windows`` their number is a constant in what is exported, so that nothing can be padded there.
    """

    scale: int
    least: int = 1
    multiple: int = 1
    windows: bool = False

    def fit(self, side: int) -> int:
        """The next larger side that the network takes."""
        return -(-max(side, self.least) // self.multiple) * self.multiple

    def padded(self, file: Path) -> bool:
        """Whether the network in a file pads images itself; ncnn's operators have no padding that follows the size."""
        return not self.windows and file.suffix != '.param'

    def words(self) -> str:
        """The limits in words."""
        sides = f'with sides of at least {self.least}' if self.least > 1 else 'of any size'
        return f'images {sides}' + (f', multiples of {self.multiple}' if self.multiple > 1 else '')


def channels_of(net: nn.Module) -> int:
    """Channels of the images that a network takes: one if its first convolution does, else three."""
    first = first_convolution(net)
    return 1 if first is not None and first.in_channels == 1 else 3


@torch.no_grad()
def limits_of(net: nn.Module) -> Limits:
    """Find out what sizes a network takes, by trying.

    Raises:
        ValueError: If it takes none that was tried.
    """
    window = getattr(net, 'window_size', None)
    if isinstance(window, int) and window > 1:
        side = 2 * window
        return Limits(net(torch.zeros(1, channels_of(net), side, side)).shape[-1] // side, side, window, True)
    for multiple in MULTIPLES:
        side = multiple * (LARGEST // multiple + 1 - LARGEST // multiple % 2)  # an odd number of times
        scale = _scale_at(net, side)
        if scale:
            break
    else:
        raise ValueError(f'it takes no image of up to {LARGEST} pixels')
    low, high = 0, -(-LARGEST // multiple)  # the least is above low times the multiple, and at most high times
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _scale_at(net, middle * multiple) == scale else (middle, high)
    return Limits(scale, high * multiple, multiple)


def _scale_at(net: nn.Module, side: int) -> int:
    """The scale of the output for a square image, or 0 if there is none."""
    try:
        shape = net(torch.zeros(1, channels_of(net), side, side)).shape[-2:]
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return 0
    scale = shape[0] // side
    return scale if shape == (side * scale, side * scale) else 0


class Padded(nn.Module):
    """A network that takes images of any size: it continues them by their edge to one that fits, and cuts the output.

    Args:
        net: The network.
        limits: What it takes itself.
    """

    def __init__(self, net: nn.Module, limits: Limits) -> None:
        super().__init__()
        self.net = net
        self.limits = limits

    def forward(self, lq: Tensor) -> Tensor:
        """N x 3 x H x W -> N x 3 x sH x sW."""
        scale, least, multiple, _ = self.limits
        if (least, multiple) == (1, 1):
            return self.net(lq)
        height, width = lq.shape[-2:]
        sides = [torch.sym_max(side, least) for side in (height, width)]  # ONNX divides negative numbers otherwise
        below, beside = ((fit + multiple - 1) // multiple * multiple for fit in sides)
        padding: Any = (0, beside - width, 0, below - height)
        sr = self.net(F.pad(lq, padding, 'replicate'))
        return sr[..., : height * scale, : width * scale]


class TransposedShuffle(nn.Module):
    """``nn.PixelShuffle`` as a transposed convolution whose kernels are ones and zeros: the same to the last bit.

    For runtimes to which a pixel shuffle is several transpositions of many dimensions, which accelerators refuse.

    Args:
        channels: Channels of the output.
        scale: The shuffle's factor.
    """

    weight: Tensor

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        weight = torch.eye(channels * scale**2).view(channels * scale**2, channels, scale, scale)
        self.register_buffer('weight', weight, persistent=False)

    def forward(self, feature: Tensor) -> Tensor:
        """B x scale^2 channels x H x W -> B x channels x scale H x scale W."""
        return F.conv_transpose2d(feature, self.weight, stride=self.scale)


@torch.no_grad()
def with_transposed_shuffles(net: nn.Module) -> nn.Module:
    """Replace every ``nn.PixelShuffle`` in a network, in place."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.PixelShuffle):
                channels: list[int] = []
                hook = child.register_forward_hook(lambda module, args, out, seen=channels: seen.append(out.shape[1]))
                net(torch.zeros(1, channels_of(net), LARGEST, LARGEST))
                hook.remove()
                setattr(parent, name, TransposedShuffle(channels[0], child.upscale_factor))
    return net
