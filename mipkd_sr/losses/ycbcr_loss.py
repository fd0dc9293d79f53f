"""L1 in the space that test sets are measured in: brightness, and colour beside it."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

FROM_RGB = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
"""BT.601: RGB in [0, 1] to Y, Cb and Cr of 8 bits, without their offsets."""


@LOSS_REGISTRY.register()
class YCbCrL1Loss(nn.Module):
    """``loss_weight * mean |C (SR - HR)|``; C takes RGB to BT.601's Y, Cb and Cr, in 255ths.

    A pixel loss, for ``pixel_opt``. L1 of RGB weighs the three colours alike; tests weigh green with 0.5 and blue with
    0.1. Of a ReparamSR with ``luma``, the convolutions change Y alone, so that errors of colour move its colour
    filters and nothing else.

    Args:
        loss_weight: Weight of the loss.
    """

    matrix: Tensor

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.register_buffer('matrix', torch.tensor(FROM_RGB)[..., None, None] / 255, persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """SR and HR, B x 3 x H x W in [0, 1] -> the loss."""
        difference = pred - target
        with torch.autocast(difference.device.type, enabled=False):
            return self.loss_weight * F.conv2d(difference, self.matrix.to(difference)).abs().mean()
