"""What a network costs: parameters, multiply-adds, time and memory."""

import math
import resource
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(net: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


PAPERS_EXTRAS = {
    torch.ops.aten.mean: lambda shape, *_, **__: 2 * math.prod(shape),
    torch.ops.aten.native_layer_norm: lambda shape, *_, **__: 2 * 5 * math.prod(shape),
}
"""What the papers' counter (fvcore) counts besides convolutions and matrix products, doubled as torch counts those: an
addition for each element that is pooled, and five operations for each that is normalised."""


@torch.no_grad()
def count_multiply_adds(net: nn.Module, size: int) -> int:
    """Multiply-adds (each counted once, as the papers do) for one LR image of ``size`` x ``size`` pixels.

    Counted by torch on tensors without values; nothing is computed, and the network is left as it was.
    """
    probe = deepcopy(net).eval()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping=PAPERS_EXTRAS) as counter,
    ):
        probe(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, until ``device`` has done what it was given."""
    start = time.perf_counter()
    work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def measure_speed(net: nn.Module, size: int, device: torch.device, repeats: int) -> tuple[float, float]:
    """Run a network on one LR image of ``size`` x ``size`` pixels at a time, ``repeats`` times and once before.

    Returns:
        Median of the images a second; and the peak memory in MiB: on a GPU what torch allocated, on a CPU that of the
        whole process until now.
    """
    net = net.eval().to(device)
    image = torch.rand(1, 3, size, size, device=device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [seconds_of(partial(net, image), device) for _ in range(repeats + 1)][1:]
    if device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return 1 / statistics.median(seconds), memory
