"""Timing calls, and what the device is called and can do."""

import statistics
from collections.abc import Callable

import torch

from mipkd_sr.evaluation.complexity import seconds_of

REPEATS = 15


def this_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_name(device: torch.device) -> str:
    """What a device is called in a table."""
    return torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} thread(s)'


def median_seconds(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Median and interquartile range of the seconds that ``work`` takes, after three times for warming up."""
    seconds = [seconds_of(work, device) for _ in range(REPEATS + 3)][3:]
    quartiles = statistics.quantiles(seconds, n=4)
    return quartiles[1], quartiles[2] - quartiles[0]


def device_speed(device: torch.device) -> tuple[float, float]:
    """The operations a second of a large matrix product, and the bytes a second of copying a large tensor."""
    size = 8192 if device.type == 'cuda' else 2048
    matrix = torch.rand(size, size, device=device)
    large = torch.rand(2**26, device=device)
    multiply, _ = median_seconds(lambda: matrix @ matrix, device)
    copy, _ = median_seconds(large.clone, device)
    return 2 * size**3 / multiply, 2 * large.nbytes / copy
