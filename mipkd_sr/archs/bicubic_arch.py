"""Bicubic interpolation as a network, so that the usual baseline can stand in any table."""

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mipkd_sr.imresize import imresize


@ARCH_REGISTRY.register()
class Bicubic(nn.Module):
    """MATLAB's bicubic upsampling; no parameters.

    Args:
        upscale: Scale.
    """

    def __init__(self, upscale: int = 4) -> None:
        super().__init__()
        self.upscale = upscale

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x sH x sW."""
        return imresize(x, self.upscale)
