"""The memory of FAKD's affinity loss."""

import resource

import torch

from mipkd_sr.losses.fakd_loss import affinity_distance


def whole_affinity_distance(feature_s: torch.Tensor, feature_t: torch.Tensor) -> torch.Tensor:
    """FAKD's loss with the whole matrices, HW x HW, as its paper writes it; see ``affinity_distance``."""
    flat_s, flat_t = (torch.nn.functional.normalize(feature.flatten(2), dim=1) for feature in (feature_s, feature_t))
    return (flat_s.mT @ flat_s - flat_t.mT @ flat_t).abs().mean()


WAYS = {'pieces': affinity_distance, 'whole': whole_affinity_distance}
"""The ways to compute the loss."""


def peak_of_affinity(way: str, size: int) -> float:
    """MiB above its inputs that the loss and its gradient need, for one map of 64 x ``size`` x ``size`` on the CPU.

    From the peak of this process's memory, so it must be the first thing that a process does.
    """
    feature_s = torch.randn(1, 64, size, size, requires_grad=True)
    feature_t = torch.randn(1, 64, size, size)
    torch.randn(64, 64, requires_grad=True).square().sum().backward()  # what autograd itself needs is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[way](feature_s, feature_t).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
