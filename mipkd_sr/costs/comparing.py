"""What a step of each method costs beside the others and beside the arithmetic that it cannot do without."""

import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torchvision
from torch.autograd import DeviceType

from mipkd_sr.archs.vqgan import VQGAN
from mipkd_sr.costs.counting import count_floor, count_needed, held_memory, measure_memory
from mipkd_sr.costs.methods import METHODS, batch_for, first_step, floor_of_kd, model_for, take_step
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.losses import csd_loss, dckd_loss
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime.errors import OptionError, compiler_problem
from mipkd_sr.runtime.long_work import told

WARM_UP = 3
"""Steps that are not counted; a CUDA graph is captured in the second and replayed from the third on."""
LEAST = 3
"""Steps that are counted even where the time is short."""
LAUNCH = re.compile('cu(da)?(GraphLaunch|Launch|Memcpy|Memset)')
"""The calls of CUDA that start something on the device, as PyTorch's profiler names them."""


class StepCost(NamedTuple):
    """What a step of a method costs."""

    seconds: float  # median, until the device has done its work
    interquartile_range: float  # of the seconds
    mean_seconds: float  # mean
    host_seconds: float  # median, until the CPU has given the device all of its work
    device_seconds: float | None  # for which the device works, in one step; None on a CPU
    launches: int | None  # kernels, graphs and copies that the CPU starts in one step; None on a CPU
    first_seconds: float  # of the first ``WARM_UP`` steps together, compilation included
    steps: int  # how many were counted
    times_kd: float  # median of the ratios to KD's step in the same turn
    mean_times_kd: float  # ratio of the means
    arithmetic_times_floor: float  # mean multiply-adds, as a multiple of KD's floor
    times_own_floor: float  # median of the ratios to the method's own floor
    peak_memory_mib: float | None  # most memory of tensors alive at a time, in MiB; None for a floor


def random_vgg(file: str | None) -> torch.nn.Sequential:
    """VGG19 with random weights, for CSD: they cost as much as the trained ones, and need no download."""
    return torchvision.models.vgg19(weights=None).features[: max(csd_loss.LAYERS) + 1]


def random_vqgan(file: object) -> VQGAN:
    """VQGAN with random weights, for DCKD, likewise."""
    return VQGAN().eval().requires_grad_(False)


class StepComparison:
    """Steps of several methods, on the same pair and batch of noise, one method after the other, beside KD.

    The floor of KD is the teacher's forward and the student's forward and backward alone, and that of scratch the
    latter. Another method's own floor is KD's multiplied with how much more arithmetic the method needs in that step;
    what MiPKD computes again to save memory is not counted. KD and its floor take turns with each method, so that
    whatever else the machine does falls on all alike.

    Args:
        opt: Options of a training run under a teacher; ``num_gpu`` says where it runs, which is ``device``.
        methods: Names out of ``METHODS``, all if empty; KD comes first in any case.
        device: See above.

    Attributes:
        left_out: Why a method is left out, a sentence each.
        work: What takes turns now, by name: KD, its floor, and a method; each takes the iteration.
    """

    def __init__(self, opt: TrainingOptions, methods: Iterable[str], device: torch.device) -> None:
        self.opt, self.device, self.batch, self.first = opt, device, batch_for(opt, device), first_step(opt)
        self.methods = list(dict.fromkeys(['KD', *(methods or METHODS)]))
        torch.backends.cudnn.benchmark = True  # as training has it
        self.left_out: list[str] = []
        self.kd = self._build('KD')
        self.work: dict[str, Callable[[int], None]] = {}

    def _build(self, method: str) -> DistillModel:
        with patch.object(csd_loss, 'vgg19_features', random_vgg), patch.object(dckd_loss, 'load_vqgan', random_vqgan):
            return model_for(self.opt, method)

    def measure(self, repeats: int, seconds: float = math.inf) -> Iterator[tuple[str, StepCost]]:
        """Time up to ``repeats`` steps of each method; each is told when it is known, after its floor.

        Args:
            repeats: At least 2.
            seconds: That all of it may take. What is left is shared among the methods that are left.

        Raises:
            OptionError: If KD is not defined for the networks.
        """
        end = time.monotonic() + seconds
        for number, name in enumerate(self.methods):
            now = time.monotonic()
            if now >= end:
                self.left_out.append(f'{name} is left out: no time was left for it; give more with --minutes.')
                continue
            try:
                model = self._build(name) if number else self.kd
                found = self._measure(name, model, repeats, now + (end - now) / (len(self.methods) - number))
            except Exception as error:  # a method that torch.compile cannot compile is left out
                problem = error.message if isinstance(error, OptionError) else compiler_problem(error)
                if not problem or name == 'KD':
                    raise
                self.left_out.append(f'{name} is left out: {problem}')
                continue
            yield from found.items()

    def _measure(self, name: str, model: DistillModel, repeats: int, until: float) -> dict[str, StepCost]:
        """The cost of a method, after that of its floor if it is KD's or scratch's."""
        floor = 'floor of scratch' if name == 'scratch' else 'floor of KD'
        floors = {'floor of KD': self.kd} | ({floor: model} if name == 'scratch' else {})
        models = {'KD': self.kd, name: model}
        self.work = {own: floor_of_kd(one, self.batch) for own, one in floors.items()}
        self.work |= {own: partial(take_step, one, self.batch) for own, one in models.items()}
        turns: dict[str, list[Turn]] = {own: [] for own in self.work}
        adds: list[int] = []
        memory = 0.0
        for number in told(range(-WARM_UP, repeats), WARM_UP + repeats, name, 'step'):
            if number >= min(LEAST, repeats) and time.monotonic() > until:
                break
            for own, take in self.work.items():
                others = self._allocated() - held_memory(model)
                turns[own].append(timed(partial(take, self.first + number), self.device))
                if own == name and self.device.type == 'cuda':
                    memory = max(memory, torch.cuda.max_memory_allocated() - others)
            if number == 0 or (number > 0 and name.startswith('MiPKD')):  # whose paths are drawn
                adds.append(count_needed(model, self.batch, self.first + number))
                if self.device.type == 'cpu':
                    memory = max(memory, measure_memory(model, self.batch, self.first + number).peak)
        counted = {own: some[WARM_UP:] for own, some in turns.items()}
        count = len(counted[name])
        needed = {own: [count_floor(one, self.batch)] * count for own, one in floors.items()}
        needed[name] = adds * (count // len(adds))
        costs = {}
        for own in (floor, name) if floor.endswith(f' {name}') else (name,):
            work: tuple[float, int] | tuple[None, None] = (None, None)  # a CPU has neither
            if self.device.type == 'cuda':
                work = device_work(trace(self.work[own], self.first, self.device).events())
            first = sum(turn.wall for turn in turns[own][:WARM_UP])
            costs[own] = _cost(own, floor, counted, needed, first, work, memory if own == name else None)
        return costs

    def _allocated(self) -> int:
        """Bytes of the GPU's memory that are taken; their peak is looked for from now on."""
        if self.device.type == 'cpu':
            return 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()


class Turn(NamedTuple):
    """Seconds of one step: until all of its work is done, and until the CPU has given it away."""

    wall: float
    host: float


def timed(work: Callable[[], object], device: torch.device) -> Turn:
    """Time one call that begins with nothing left to be done on ``device``."""
    ended: list[float] = []

    def noted() -> None:
        start = time.perf_counter()
        work()
        ended.append(time.perf_counter() - start)

    return Turn(seconds_of(noted, device), ended[0])


def device_work(events: Iterable[Any]) -> tuple[float, int]:
    """The seconds in which a GPU was at work, and what the CPU started on it, out of PyTorch's profiler's events."""
    launches, spans = 0, []
    for event in events:
        if event.device_type == DeviceType.CPU:
            launches += bool(LAUNCH.match(event.name))
        elif not getattr(event, 'is_user_annotation', False):
            spans.append((event.time_range.start, event.time_range.end))
    busy, last = 0.0, -math.inf
    for start, end in sorted(spans):  # those of several streams may overlap
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return busy / 1e6, launches


def _cost(
    name: str,
    floor: str,
    turns: Mapping[str, Sequence[Turn]],
    arithmetic: Mapping[str, Sequence[int]],
    first_seconds: float,
    work: tuple[float | None, int | None],
    memory: float | None,
) -> StepCost:
    own, kd, least = ([turn.wall for turn in turns[key]] for key in (name, 'KD', floor))
    more = [adds / arithmetic[floor][0] for adds in arithmetic[name]]
    quartiles = statistics.quantiles(own, n=4)
    return StepCost(
        seconds=quartiles[1],
        interquartile_range=quartiles[2] - quartiles[0],
        mean_seconds=statistics.mean(own),
        host_seconds=statistics.median(turn.host for turn in turns[name]),
        device_seconds=work[0],
        launches=work[1],
        first_seconds=first_seconds,
        steps=len(own),
        times_kd=statistics.median(a / b for a, b in zip(own, kd, strict=True)),
        mean_times_kd=statistics.mean(own) / statistics.mean(kd),
        arithmetic_times_floor=statistics.mean(arithmetic[name]) / arithmetic['floor of KD'][0],
        times_own_floor=statistics.median(a / b / c for a, b, c in zip(own, least, more, strict=True)),
        peak_memory_mib=None if memory is None else memory / 2**20,
    )


def trace(take: Callable[[int], None], iteration: int, device: torch.device) -> torch.profiler.profile:
    """A step under PyTorch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        take(iteration)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
    return found


def profile(take: Callable[[int], None], iteration: int, device: torch.device) -> str:
    """Where a step's time goes, as PyTorch's profiler tells it."""
    key = 'self_cuda_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
    found = trace(take, iteration, device)
    return found.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=45)
