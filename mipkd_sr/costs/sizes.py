"""How a step's time and memory grow with batch, patch, widths, positions and processes, and what a plan expects."""

import os
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mipkd_sr.costs.measuring import device_speed
from mipkd_sr.costs.memory import measure_memory
from mipkd_sr.costs.methods import batch_for, first_step, model_for, take_step
from mipkd_sr.costs.planner import plan_step
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.evaluation.tables import markdown_table
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime import distributed

SIZES: dict[str, dict[int, list[str]]] = {
    'batch': {value: [f'datasets:train:batch_size_per_gpu={value}'] for value in (2, 4, 8, 16)},
    'patch': {value: [f'datasets:train:gt_size={2 * value}'] for value in (16, 24, 32, 48)},
    "teacher's width": {value: [f'network_t:num_feat={value}'] for value in (16, 32, 64, 128)},
    'positions K': {value: [f'train:mipkd_opt:positions={value}'] for value in (1, 2, 3, 4)},
    'world size': {1: [], 2: []},
}
"""What is varied about the demo's pair, one thing at a time; the rest is as in its option file.

The world size is that of processes with the same batch each: with a GPU each, or one thread of a CPU each."""


def measure_size(opt: TrainingOptions, method: str, repeats: int, device: torch.device) -> dict[str, float]:
    """Measure a step of ``method``, and plan it at the speed of this process.

    Under torchrun this joins the other processes.

    Args:
        opt: Options of a training run under a teacher.
        method: One of ``METHODS``; MiPKD has the run's own ``mipkd_opt``.
        repeats: Steps to take the mean of.
        device: The device of ``num_gpu``.

    Returns:
        ``ms`` and ``mib`` of a step, ``expected_ms`` and ``expected_mib``, and the process's ``gflops`` and ``gb_s``.
    """
    speed = device_speed(device)
    terms: Mapping[str, Any] = opt['train']
    own = {'mipkd_opt': terms['mipkd_opt']} if method == 'MiPKD' else {}
    expected = plan_step(opt, method, *speed, steps=repeats, **own)
    if 'RANK' in os.environ:
        distributed.start('pytorch', opt)
    model, batch = model_for(opt, method, **own), batch_for(opt, device)
    first = first_step(opt)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()  # of what measuring the device's speed took
    steps = range(first, first + repeats + 2)
    seconds = [seconds_of(partial(take_step, model, batch, number), device) for number in steps]
    if device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = max(measure_memory(model, batch, first + number).peak for number in range(repeats))
    distributed.stop()
    return {
        'ms': 1000 * statistics.mean(seconds[2:]),
        'mib': memory / 2**20,
        'expected_ms': 1000 * expected.seconds,
        'expected_mib': expected.memory / 2**20,
        'gflops': speed[0] / 1e9,
        'gb_s': speed[1] / 1e9,
    }


def sizes_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The table of measurements: what ``measure_size`` returns, with ``varied``, ``value`` and ``method``."""
    rows = []
    for entry in found:
        cells = [entry['varied'], str(entry['value']), entry['method']]
        rows.append([*cells, *(f'{entry[key]:.1f}' for key in ('ms', 'expected_ms', 'mib', 'expected_mib'))])
    table = markdown_table(['varied', 'value', 'method', 'ms a step', 'ms, planned', 'MiB', 'MiB, planned'], rows)
    lines = [f'{found[0]["gflops"]:,.0f} GFLOP/s and {found[0]["gb_s"]:,.1f} GB/s in the first process.']
    for key, what in (('ms', 'time'), ('mib', 'memory')):
        ratios = [entry[f'expected_{key}'] / entry[key] for entry in found]
        spread = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
        lines.append(f'Planned {what} by measured: {spread}, the median and the range.')
    return f'{table}\n\n{" ".join(lines)}'
