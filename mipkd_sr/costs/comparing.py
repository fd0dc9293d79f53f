"""What a step of each method costs beside the others and beside the arithmetic that it cannot do without."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor

from mipkd_sr.archs.vqgan import VQGAN
from mipkd_sr.costs.counting import count_floor, count_needed
from mipkd_sr.costs.memory import held_memory, measure_memory
from mipkd_sr.costs.methods import METHODS, batch_for, first_step, floor_of_kd, model_for, take_step
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.losses import csd_loss, dckd_loss
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime.errors import OptionError, compiler_problem

WARM_UP = 2
"""Turns that are not counted."""


class StepCost(NamedTuple):
    """What a step of a method costs.

    Attributes:
        seconds: Median.
        interquartile_range: Of the seconds.
        mean_seconds: Mean.
        times_kd: Median of the ratios to KD's step in the same turn.
        mean_times_kd: Ratio of the means.
        arithmetic_times_floor: Mean multiply-adds, as a multiple of KD's floor.
        times_own_floor: Median of the ratios to the method's own floor.
        peak_memory_mib: Most memory of tensors alive at a time, in MiB; None for a floor.
    """

    seconds: float
    interquartile_range: float
    mean_seconds: float
    times_kd: float
    mean_times_kd: float
    arithmetic_times_floor: float
    times_own_floor: float
    peak_memory_mib: float | None


def random_vgg(file: str | None) -> torch.nn.Sequential:
    """VGG19 with random weights, for CSD: they cost as much as the trained ones, and need no download."""
    return torchvision.models.vgg19(weights=None).features[: max(csd_loss.LAYERS) + 1]


def random_vqgan(file: object) -> VQGAN:
    """VQGAN with random weights, for DCKD, likewise."""
    return VQGAN().eval().requires_grad_(False)


class StepComparison:
    """Steps of several methods, on the same pair and batch of noise.

    The floor of KD is the teacher's forward and the student's forward and backward alone, timed in the same turn, and
    that of scratch the latter. Another method's own floor is KD's multiplied with how much more arithmetic the method
    needs in that step; what MiPKD computes again to save memory is not counted.

    Args:
        opt: Options of a training run under a teacher; ``num_gpu`` says where it runs.
        methods: Names out of ``METHODS``; KD is always among them.
        device: The device of ``num_gpu``.

    Attributes:
        models: The models, by method.
        batch: What they train on.
        left_out: Why a method is left out, a sentence each.
        work: What is timed, by name: the floors, and the methods; each takes the iteration.
    """

    def __init__(self, opt: TrainingOptions, methods: Iterable[str], device: torch.device) -> None:
        self.device, self.batch, self.first = device, batch_for(opt, device), first_step(opt)
        torch.backends.cudnn.benchmark = True  # as training has it
        self.models: dict[str, DistillModel] = {}
        self.left_out: list[str] = []
        for method in dict.fromkeys(['KD', *(methods or METHODS)]):
            try:
                with (
                    patch.object(csd_loss, 'vgg19_features', random_vgg),
                    patch.object(dckd_loss, 'load_vqgan', random_vqgan),
                ):
                    self.models[method] = model_for(opt, method)
            except OptionError as error:
                self.left_out.append(f'{method} is left out: {error.message}')
        self.floors = {f'floor of {name}': self.models[name] for name in ('KD', 'scratch') if name in self.models}
        self.work: dict[str, Callable[[int], None]] = {
            name: floor_of_kd(model, self.batch) for name, model in self.floors.items()
        }
        self.work |= {name: partial(take_step, model, self.batch) for name, model in self.models.items()}

    def measure(self, repeats: int) -> dict[str, StepCost]:
        """Time ``repeats`` steps of each in turn, so that whatever else the machine does falls on all alike."""
        seconds, memory = self._take_turns(repeats)
        arithmetic = {name: [count_floor(model, self.batch)] * repeats for name, model in self.floors.items()}
        for name, model in self.models.items():
            steps = range(
                self.first, self.first + (repeats if name.startswith('MiPKD') else 1)
            )  # whose paths are drawn
            if self.device.type == 'cpu':
                memory[name] = max(measure_memory(model, self.batch, number).peak for number in steps)
            adds = [count_needed(model, self.batch, number) for number in steps]
            arithmetic[name] = adds * (repeats // len(adds))
        return {name: _cost(name, seconds, arithmetic, memory.get(name)) for name in self.work}

    def _take_turns(self, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
        """The seconds of each, and on a GPU each method's peak memory in bytes."""
        seconds: dict[str, list[float]] = {name: [] for name in self.work}
        memory: dict[str, float] = dict.fromkeys(self.models, 0.0)
        for number in range(-WARM_UP, repeats):
            for name, take in list(self.work.items()):
                if self.device.type == 'cuda':
                    torch.cuda.reset_peak_memory_stats()
                    others = torch.cuda.memory_allocated() - held_memory(self.models.get(name, self.models['KD']))
                try:
                    taken = seconds_of(partial(take, self.first + number), self.device)
                except Exception as error:
                    self._leave_out(name, error)
                    continue
                if number >= 0:
                    seconds[name].append(taken)
                if self.device.type == 'cuda' and name in memory:
                    memory[name] = max(memory[name], torch.cuda.max_memory_allocated() - others)
        return seconds, memory

    def _leave_out(self, name: str, error: Exception) -> None:
        """A method that torch.compile cannot compile is left out, unless all the others are compared with it."""
        problem = compiler_problem(error)
        if not problem or name not in self.models or name == 'KD':
            raise error
        self.left_out.append(f'{name} is left out: {problem}')
        del self.work[name], self.models[name]


def _cost(
    name: str,
    seconds: Mapping[str, Sequence[float]],
    arithmetic: Mapping[str, Sequence[int]],
    memory: float | None,
) -> StepCost:
    own, kd = seconds[name], seconds['KD']
    floor = 'floor of scratch' if name.endswith('scratch') else 'floor of KD'
    more = [adds / arithmetic[floor][0] for adds in arithmetic[name]]
    quartiles = statistics.quantiles(own, n=4)
    return StepCost(
        seconds=quartiles[1],
        interquartile_range=quartiles[2] - quartiles[0],
        mean_seconds=statistics.mean(own),
        times_kd=statistics.median(a / b for a, b in zip(own, kd, strict=True)),
        mean_times_kd=statistics.mean(own) / statistics.mean(kd),
        arithmetic_times_floor=statistics.mean(arithmetic[name]) / arithmetic['floor of KD'][0],
        times_own_floor=statistics.median(a / b / c for a, b, c in zip(own, seconds[floor], more, strict=True)),
        peak_memory_mib=None if memory is None else memory / 2**20,
    )


def profile(take: Callable[[int], None], iteration: int, device: torch.device) -> str:
    """Where a step's time goes, as PyTorch's profiler tells it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        take(iteration)
    key = 'self_cuda_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
    return found.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=45)


def batch_size_and_side(batch: Mapping[str, Tensor]) -> tuple[int, int]:
    """Number of LR patches in a batch, and their side in pixels."""
    return batch['lq'].shape[0], batch['lq'].shape[-1]
