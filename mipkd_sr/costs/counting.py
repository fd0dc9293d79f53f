"""Counting what a training step does: forwards, multiply-adds, operators."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mipkd_sr.costs.methods import floor_of_kd, take_step, uncompiled
from mipkd_sr.distill.block_prior_mixer import BlockPriorMixer
from mipkd_sr.models.distill_model import DistillModel


class StepCounts(NamedTuple):
    """What a step does: calls of each network from its start, multiply-adds, operators that PyTorch runs."""

    teacher_forwards: int
    student_forwards: int
    multiply_adds: int
    operators: int


class _CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _count_forwards(nets: Mapping[str, nn.Module | None]) -> Any:
    """Count how often each network's head runs, which every forward goes through once."""
    calls: Counter[str] = Counter()
    heads: dict[str, Any] = {name: net.head for name, net in nets.items() if net is not None}

    def counted(name: str) -> Callable[[Tensor], Any]:
        def head(lq: Tensor) -> Any:
            calls[name] += 1
            return heads[name](lq)

        return head

    for name in heads:
        nets[name].head = counted(name)  # type: ignore[union-attr]
    try:
        yield calls
    finally:
        for name in heads:
            del nets[name].head  # type: ignore[union-attr]


def count_step(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> StepCounts:
    """Count what a step does; the step is taken."""
    nets = {'student': model.net_g, **model.teachers}
    flops = FlopCounterMode(display=False)
    with uncompiled(model), _count_forwards(nets) as calls, _CountOperators() as operators, flops:
        take_step(model, batch, iteration)
    teacher_calls = sum(calls[name] for name in model.teachers)
    return StepCounts(teacher_calls, calls['student'], flops.get_total_flops() // 2, operators.total)


def count_needed(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> int:
    """Multiply-adds of a step, but for what MiPKD computes again to save memory; the step is taken."""
    mixers = [module for module in model.step.modules() if isinstance(module, BlockPriorMixer)]
    parts = [mixer.teacher_parts for mixer in mixers]
    for mixer in mixers:
        mixer.teacher_parts = 0
    try:
        with uncompiled(model), FlopCounterMode(display=False) as flops:
            take_step(model, batch, iteration)
        return flops.get_total_flops() // 2
    finally:
        for mixer, before in zip(mixers, parts, strict=True):
            mixer.teacher_parts = before


def count_floor(model: DistillModel, batch: Mapping[str, Tensor]) -> int:
    """Multiply-adds of ``floor_of_kd``."""
    with FlopCounterMode(display=False) as flops:
        floor_of_kd(model, batch)(1)
    return flops.get_total_flops() // 2
