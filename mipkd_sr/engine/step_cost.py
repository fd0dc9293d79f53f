"""What a training step of each method costs: counts, which do not depend on the machine, and seconds, which do."""

import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from mipkd_sr.data import lq_patch_size
from mipkd_sr.distill.block_prior_mixer import BlockPriorMixer
from mipkd_sr.distill.ranks import rank_and_size
from mipkd_sr.models import build_model
from mipkd_sr.models.distill_model import DistillModel

KD = {'kd_opt': {'type': 'LogitsKDLoss'}}
METHODS: dict[str, dict[str, Any]] = {
    'scratch': {},
    'KD': KD,
    'FAKD': {**KD, 'fakd_opt': {'type': 'FAKDLoss'}},
    'CSD': {'csd_opt': {'type': 'CSDLoss'}},
    'DUKD': {**KD, 'dukd_opt': {'type': 'DUKDLoss'}},
    'MiPKD': {**KD, 'mipkd_opt': {'type': 'MiPKDLoss'}},
    'MiPKD + DUKD': {**KD, 'mipkd_opt': {'type': 'MiPKDLoss'}, 'dukd_opt': {'type': 'DUKDLoss'}},
}
"""The methods that are compared, by the losses that they add to the pixel loss; all with their defaults."""


def model_for(opt: Mapping[str, Any], method: str, **changes: Any) -> DistillModel:
    """The model of a method, for the networks, scale, patches and optimizer of a training run, with random weights.

    Where torch.distributed is initialized it is wrapped for it.

    Args:
        opt: Options of a training run under a teacher, as ``load_options`` completes them.
        method: One of ``METHODS``.
        changes: Further entries of ``train``.

    Raises:
        OptionError: If the method is not defined for these networks.
    """
    own = deepcopy(dict(opt))
    rank, world_size = rank_and_size()
    own.update(model_type='DistillModel', rank=rank, world_size=world_size, dist=torch.distributed.is_initialized())
    own['path']['pretrain_network_t'] = own['path']['pretrain_network_g'] = None
    losses = {key for key in own['train'] if key.endswith('_opt')} - {'pixel_opt'}
    for key in losses:
        del own['train'][key]
    own['train'] |= deepcopy(METHODS[method]) | changes
    if method == 'scratch':
        del own['network_t']
    torch.manual_seed(0)
    return build_model(own)


def batch_for(opt: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """A batch of noise of the run's size."""
    side, batch = lq_patch_size(dict(opt)), opt['datasets']['train']['batch_size_per_gpu']
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(batch, 3, side, side, generator=generator)
    gt = torch.rand(batch, 3, side * opt['scale'], side * opt['scale'], generator=generator)
    return {'lq': lq.to(device), 'gt': gt.to(device)}


def floor_of_kd(model: DistillModel, batch: Mapping[str, Tensor]) -> Callable[[int], None]:
    """The arithmetic that no distillation can do without: the teacher's forward, the student's forward and backward."""

    def work(iteration: int) -> None:
        if model.net_t is not None:
            with torch.no_grad():
                model.net_t(batch['lq'])
        model.net_g.zero_grad()
        F.l1_loss(model.net_g(batch['lq']), batch['gt']).backward()

    return work


def first_step(opt: Mapping[str, Any]) -> int:
    """The iteration at which measuring begins: the middle of the training, where MiPKD's l_ae has ended."""
    return round(0.5 * opt['train']['total_iter'])


def take_step(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> None:
    """One step of the training loop, without the reading of data and the logging."""
    model.feed_data(batch)
    model.optimize_parameters(iteration)


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
    nets = {'teacher': model.net_t, 'student': model.net_g}
    with _count_forwards(nets) as calls, _CountOperators() as operators, FlopCounterMode(display=False) as flops:
        take_step(model, batch, iteration)
    return StepCounts(calls['teacher'], calls['student'], flops.get_total_flops() // 2, operators.total)


def count_needed(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> int:
    """Multiply-adds of a step, but for what MiPKD computes again to save memory; the step is taken."""
    mixers = [module for module in model.step.modules() if isinstance(module, BlockPriorMixer)]
    parts = [mixer.teacher_parts for mixer in mixers]
    for mixer in mixers:
        mixer.teacher_parts = 0
    try:
        return count_step(model, batch, iteration).multiply_adds
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
    nets = [model.step, *(net for net in (model.net_t, getattr(model, 'net_g_ema', None)) if net is not None)]
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
    with PeakMemory(_held(model, gradients=True)) as memory:
        take_step(model, batch, iteration)
    return StepMemory(held_memory(model, gradients=False), memory.peak)


class Plan(NamedTuple):
    """What a step is expected to take: seconds, and bytes of the device's memory."""

    seconds: float
    memory: float


class _Roofline(TorchDispatchMode):
    """Adds up, operator by operator, the longer of computing and of moving the operands to and from memory."""

    def __init__(self, flops: float, bandwidth: float) -> None:
        super().__init__()
        self.flops, self.bandwidth = flops, bandwidth
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        count = flop_registry.get(func.overloadpacket)
        computed = count(*args, **(kwargs or {}), out_val=out) if count else 0
        self.seconds += max(computed / self.flops, moved / self.bandwidth)
        return out


def plan_step(
    opt: Mapping[str, Any],
    method: str,
    flops: float,
    bandwidth: float,
    steps: int = 8,
    utilisation: float = 1.0,
    **changes: Any,
) -> Plan:
    """Expect what a step takes on a device, from one sample that is computed here.

    Time: the roofline, divided by ``utilisation``. Memory: what stays from step to step, and the rest of a step's peak
    times the batch size.

    Args:
        opt: Options of a training run under a teacher.
        method: One of ``METHODS``.
        flops: The device's operations a second (a multiply-add being two), in the precision that is used.
        bandwidth: Its memory's bytes a second.
        steps: Steps to average over; MiPKD's differ.
        utilisation: Part of the roofline that is reached, in (0, 1].
        changes: See ``model_for``.
    """
    one = deepcopy(dict(opt))
    one['num_gpu'] = 0
    batch_size = one['datasets']['train']['batch_size_per_gpu']
    one['datasets']['train']['batch_size_per_gpu'] = 1
    model, batch = model_for(one, method, **changes), batch_for(one, torch.device('cpu'))
    take_step(model, batch, 1)  # creates the optimizer's state
    first = first_step(one)
    roofline = _Roofline(flops, bandwidth)
    held, peak = 0, 0
    for number in range(steps):
        with roofline:
            memory = measure_memory(model, batch, first + number)
        held, peak = memory.held, max(peak, memory.peak)
    return Plan(batch_size * roofline.seconds / steps / utilisation, held + batch_size * (peak - held))
