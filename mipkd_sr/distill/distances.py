"""Distances of a mixed feature map from the teacher's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _L1Distance(torch.autograd.Function):
    """``mean |map - target|``. It keeps one byte an element for the gradient; F.l1_loss keeps both maps."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, target: Tensor) -> Tensor:
        dtype = torch.promote_types(feature.dtype, torch.float32)  # as autocast computes losses
        difference = feature.to(dtype) - target.to(dtype)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(difference.sign().to(torch.int8))
            ctx.dtype = feature.dtype
        return difference.abs_().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (sign,) = ctx.saved_tensors
        return (sign * (grad / sign.numel())).to(ctx.dtype), None


def l1_distance(feature: Tensor, target: Tensor) -> Tensor:
    """``mean |feature - target|``, a scalar, of two maps of one shape; ``target`` gets no gradient."""
    distance: Tensor = _L1Distance.apply(feature, target)
    return distance


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {'l1': l1_distance, 'l2': F.mse_loss}
