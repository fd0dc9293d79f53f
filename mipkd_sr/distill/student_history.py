"""A network's own past: an average of what it was, that nothing trains."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mipkd_sr.distill.teacher import run_network


class History(nn.Module):
    """A copy of a network that follows it when ``follow`` is called: ``history = decay * history + (1 - decay) *
    network``.

    It is a part of the objective that owns it, so it is saved in the training state; it has no gradient, reaches no
    optimizer and stays in evaluation mode.

    Raises:
        ValueError: If ``decay`` is not in [0, 1].
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f'decay must be in [0, 1], not {decay}')
        self.decay = decay
        self.net = deepcopy(net).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'History':
        """Do nothing: a history is always in evaluation mode."""
        return self

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Move towards ``net``: parameters by the average; buffers (running means, counts) are taken as they are."""
        for own, other in zip(self.net.parameters(), net.parameters(), strict=True):
            own.lerp_(other.detach().to(own.dtype), 1 - self.decay)
        for buffer, other_buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            buffer.copy_(other_buffer)

    @torch.no_grad()
    def forward(self, lq: Tensor) -> Tensor:
        """LR images (B x 3 x H x W, [0, 1]) -> SR images (B x 3 x sH x sW), without gradient."""
        return run_network(self.net, lq).sr
