"""What cheaper arithmetic of a teacher's forward saves, and changes."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipkd_sr.costs.measuring import median_seconds
from mipkd_sr.distill.teacher import FrozenTeacher

ARITHMETIC = (
    ('fp32', torch.float32, torch.contiguous_format),
    ('fp32, channels last', torch.float32, torch.channels_last),
    ('bf16', torch.bfloat16, torch.contiguous_format),
    ('bf16, channels last', torch.bfloat16, torch.channels_last),
    ('fp16', torch.float16, torch.contiguous_format),
)
"""What is compared: a name, the type, the memory format. The first is the reference."""


class TeacherCost(NamedTuple):
    """What a teacher costs in some arithmetic.

    Attributes:
        arithmetic: Its name.
        seconds: Median for all images; None where it was not timed: fp16 takes a CPU minutes.
        psnr: Mean PSNR of the output (values in [0, 1]) to the reference's, in dB; None if they are equal.
    """

    arithmetic: str
    seconds: float | None
    psnr: float | None


def measure_teacher(net: nn.Module, lqs: Sequence[Tensor], device: torch.device) -> Iterator[TeacherCost]:
    """Run a teacher on LR images (1 x 3 x H x W, values in [0, 1], on ``device``) in each arithmetic."""
    expected: list[Tensor] = []
    for name, precision, memory_format in ARITHMETIC:
        frozen = FrozenTeacher(deepcopy(net).to(device).to(memory_format=memory_format), precision)
        inputs = [lq.contiguous(memory_format=memory_format) for lq in lqs]
        timed = device.type == 'cuda' or precision is not torch.float16
        seconds = median_seconds(partial(_run_all, frozen, inputs), device)[0] if timed else None
        outputs = [frozen(lq).sr.double() for lq in inputs]
        expected = expected or outputs
        errors = [(sr - reference).square().mean() for sr, reference in zip(outputs, expected, strict=True)]
        psnrs = [-10 * error.log10().item() for error in errors if error > 0]
        yield TeacherCost(name, seconds, statistics.mean(psnrs) if psnrs else None)


def _run_all(network: Callable[[Tensor], object], images: Sequence[Tensor]) -> None:
    for image in images:
        network(image)
