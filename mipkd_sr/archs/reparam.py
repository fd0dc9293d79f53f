"""Convolutions that train as several and run as one (structural re-parameterisation), and fusing them.

Linear layers in a row are one linear layer. So its kernel can be learned as a product of others, which Adam finds
easier, and be multiplied out before each step: a step then costs hardly more than that of the plain convolution.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Net = TypeVar('Net', bound=nn.Module)


class ReparamConv(nn.Module):
    """A k x k convolution whose kernel is made of other parameters, until it is fused.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        kernel_size: Side of the kernel, odd.
        fused: Whether to be the one convolution alone, ``eval_conv``, in training as well.
    """

    eval_conv: nn.Conv2d

    def __init__(self, width_in: int, width_out: int, kernel_size: int = 3, fused: bool = False) -> None:
        super().__init__()
        self.shape = (width_in, width_out, kernel_size)
        self.fused = fused
        if fused:
            self.eval_conv = self._convolution()

    def _convolution(self) -> nn.Conv2d:
        width_in, width_out, kernel_size = self.shape
        return nn.Conv2d(width_in, width_out, kernel_size, padding=kernel_size // 2)

    def product(self) -> tuple[Tensor, Tensor]:
        """The kernel, width_out x width_in x k x k, and the bias, width_out, of the parameters; with gradients."""
        raise NotImplementedError

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The kernel and the bias of the one convolution; with gradients."""
        if self.fused:
            return self.eval_conv.weight, bias_of(self.eval_conv)
        with torch.autocast(next(self.parameters()).device.type, enabled=False):  # products need their digits
            return self.product()

    def forward(self, feature: Tensor) -> Tensor:
        """B x width_in x H x W -> B x width_out x H x W."""
        if self.fused:
            return self.eval_conv(feature)
        kernel, bias = self.kernel_and_bias()
        return F.conv2d(feature, kernel, bias, padding=self.shape[-1] // 2)

    @torch.no_grad()
    def fuse(self) -> None:
        """Become the one convolution; what it was made of is gone."""
        if self.fused:
            return
        kernel, bias = self.kernel_and_bias()
        fused = self._convolution().to(kernel)
        fused.weight.copy_(kernel)
        bias_of(fused).copy_(bias)
        for part in [*dict(self.named_children()), *dict(self.named_parameters(recurse=False))]:
            delattr(self, part)
        self._state_dict_pre_hooks.clear()
        self.eval_conv, self.fused = fused.train(self.training), True


class ExpandedConv(ReparamConv):
    """SESR's linear block: a k x k convolution to many channels, a 1 x 1 to the width, and perhaps the input added.

    Paper: Collapsible Linear Blocks for Super-Efficient Super Resolution, https://arxiv.org/abs/2103.09404, Section 3,
    with its efficient training: the kernels are multiplied, not the feature maps. The block's first bias would be one
    with the second, and is left out.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        kernel_size: Side of the kernel, odd.
        expanded: Channels between the two convolutions; 0 for a plain convolution.
        add_input: Whether the input is added to the output, by ones in the kernel; the widths must be the same.
        fused: See ``ReparamConv``.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel_size: int = 3,
        expanded: int = 256,
        add_input: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(width_in, width_out, kernel_size, fused)
        self.add_input = add_input
        if fused:
            return
        self.weight = nn.Parameter(torch.empty(expanded or width_out, width_in, kernel_size, kernel_size))
        nn.init.xavier_uniform_(self.weight)
        self.squeeze = nn.Parameter(torch.empty(width_out, expanded)) if expanded else None
        if self.squeeze is not None:
            nn.init.xavier_uniform_(self.squeeze)
        self.bias = nn.Parameter(torch.zeros(width_out))

    def product(self) -> tuple[Tensor, Tensor]:
        """See ``ReparamConv``."""
        kernel: Tensor = self.weight
        if self.squeeze is not None:
            kernel = (self.squeeze @ kernel.flatten(1)).view(-1, *kernel.shape[1:])
        if self.add_input:
            width, _, side = self.shape
            eye = torch.eye(width, dtype=kernel.dtype, device=kernel.device)
            kernel = kernel + F.pad(eye[:, :, None, None], (side // 2,) * 4)
        return kernel, self.bias


class Conv3XC(ReparamConv):
    """SPAN's convolution: ``conv1x1(conv3x3(conv1x1(x))) + sk(x)``, where ``sk`` is 1 x 1 as well.

    In training mode it computes that, in evaluation mode the one 3 x 3 convolution. ``eval_conv`` is a copy of that one
    for those who read the file; a fused network has nothing else, as the checkpoints of the challenges.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        gain: Factor on the channels between the convolutions.
        fused: See ``ReparamConv``.
    """

    def __init__(self, width_in: int, width_out: int, gain: int = 2, fused: bool = False) -> None:
        super().__init__(width_in, width_out, 3, fused)
        if fused:
            return
        self.eval_conv = self._convolution().requires_grad_(False)
        self.sk = nn.Conv2d(width_in, width_out, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, width_in * gain, 1),
            nn.Conv2d(width_in * gain, width_out * gain, 3),
            nn.Conv2d(width_out * gain, width_out, 1),
        )
        self.register_state_dict_pre_hook(_refresh_copy)

    def product(self) -> tuple[Tensor, Tensor]:
        """See ``ReparamConv``."""
        first, middle, last = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        before, after = first.weight[:, :, 0, 0], last.weight[:, :, 0, 0]
        kernel = torch.einsum('om,mnhw,ni->oihw', after, middle.weight, before)
        bias = after @ (middle.weight.sum((2, 3)) @ bias_of(first) + bias_of(middle)) + bias_of(last)
        return kernel + F.pad(self.sk.weight, (1, 1, 1, 1)), bias + bias_of(self.sk)

    def forward(self, feature: Tensor) -> Tensor:
        """B x width_in x H x W -> B x width_out x H x W."""
        if self.training and not self.fused:
            # The border is padded before the first convolution, whose bias it then has, as the one kernel's border has.
            return self.conv(F.pad(feature, (1, 1, 1, 1))) + self.sk(feature)
        return super().forward(feature)


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    assert layer.bias is not None
    return layer.bias


@torch.no_grad()
def _refresh_copy(module: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Before a Conv3XC is saved: its copy of the one convolution becomes that of today."""
    assert isinstance(module, Conv3XC)
    kernel, bias = module.kernel_and_bias()
    module.eval_conv.weight.copy_(kernel)
    bias_of(module.eval_conv).copy_(bias)


def fuse(net: Net) -> Net:
    """Make every convolution of ``net`` that trains as several the one that it runs as, in place.

    The output stays, to rounding. A network that has none is left as it is.
    """
    for module in net.modules():
        if isinstance(module, ReparamConv):
            module.fuse()
    return net
