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
