"""What a training step does: its multiply-adds, and the memory of its tensors."""

import itertools
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from mipkd_sr.costs.methods import floor_of_kd, take_step, uncompiled
from mipkd_sr.distill.block_prior_mixer import BlockPriorMixer
from mipkd_sr.models.distill_model import DistillModel


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


class PeakMemory(TorchDispatchMode):
    """Follows which storages are alive; ``peak`` is the most bytes that they had at a time, those ``held`` included."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = WeakIdKeyDictionary()
        self.live = self.peak = 0
        for tensor in held:
            self._note(tensor)
        self.held = self.live

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known[storage] = True
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage.nbytes()).atexit = False

    def _forget(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out


class StepMemory(NamedTuple):
    """Bytes of tensors: what stays throughout (weights, the optimizer's state), and a step's peak, which includes it.

    Gradients do not stay: they are let go as a step begins.
    """

    held: int
    peak: int


def _held(model: DistillModel, gradients: bool) -> list[Tensor]:
    averages = [model.net_g_ema] if hasattr(model, 'net_g_ema') else []
    nets = [model.step, *model.teachers.values(), *averages]
    held = [tensor for net in nets for tensor in itertools.chain(net.parameters(), net.buffers())]
    held += [value for state in model.optimizer_g.state.values() for value in state.values() if torch.is_tensor(value)]
    if gradients:
        held += [parameter.grad for parameter in model.step.parameters() if parameter.grad is not None]
    return held


def held_memory(model: DistillModel, gradients: bool = True) -> int:
    """Bytes of the weights, the optimizer's state and, between steps, the gradients."""
    return PeakMemory(_held(model, gradients)).held


def measure_memory(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> StepMemory:
    """Measure the memory of a step, on a CPU; the step is taken. The optimizer's state must be there already."""
    with uncompiled(model), PeakMemory(_held(model, gradients=True)) as memory:
        take_step(model, batch, iteration)
    return StepMemory(held_memory(model, gradients=False), memory.peak)
