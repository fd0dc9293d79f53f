"""The teacher, frozen."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mipkd_sr.archs.staged import run_with_features
from mipkd_sr.distill.objective import NetworkPass


class FrozenTeacher:
    """A teacher network that nothing trains.

    It is no ``nn.Module`` on purpose: a module that holds it does not own its parameters, so they reach no optimizer,
    no moving average, no checkpoint and no DistributedDataParallel, and no ``train()`` turns its drop-path on.

    Args:
        net: The network. It is put into evaluation mode and its parameters need no gradient from here on.
        precision: Type of its arithmetic when it runs on images; the surrounding autocast's if None. What it gives has
            the images' type. A path from the middle of it, through which gradients flow, is not concerned.
    """

    def __init__(self, net: nn.Module, precision: torch.dtype | None = None) -> None:
        self.net = net.eval().requires_grad_(False)
        self.precision = precision

    @torch.no_grad()
    def __call__(self, lq: Tensor, indices: Iterable[int] = ()) -> NetworkPass:
        """Run the teacher on LR images (B x 3 x H x W, [0, 1]) and keep its features after the units ``indices``."""
        if self.precision is None:
            return run_network(self.net, lq, indices)
        with torch.autocast(lq.device.type, self.precision, enabled=self.precision is not torch.float32):
            return run_network(self.net, lq, indices).to(lq.dtype)


def run_network(net: nn.Module, lq: Tensor, indices: Iterable[int] = ()) -> NetworkPass:
    """Run ``net`` on LR images (B x 3 x H x W, [0, 1]); with features it must have head, body and tail."""
    indices = list(indices)
    if not indices:
        return NetworkPass(net, net(lq))  # type: ignore[arg-type]  # a network without stages has its output alone
    sr, features, context = run_with_features(net, lq, indices)  # type: ignore[arg-type]
    return NetworkPass(net, sr, features, context)  # type: ignore[arg-type]
