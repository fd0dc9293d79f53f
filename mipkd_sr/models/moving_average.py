"""The moving average of the student's weights."""

import torch
from torch import nn


def decay_at(step: int, decay: float, warmup: bool) -> float:
    """The average's decay at a step, from 1: with the warm-up ``min(decay, (1 + step) / (10 + step))``.

    Without it the average contains the random start for some ``1 / (1 - decay)`` steps, and is useless until then.
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


def move_average(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the average: ``average = decay * average + (1 - decay) * student``; buffers are the student's own.

    Averaging would not help a buffer that is an average already (BatchNorm's statistics) or a counter.
    """
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(student.buffers()))
    averages, parameters = ([p.detach() for p in net.parameters()] for net in (average, student))
    torch._foreach_mul_(averages, decay)
    torch._foreach_add_(averages, parameters, alpha=1 - decay)
