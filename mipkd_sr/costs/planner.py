"""What a training step is expected to take on a device."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mipkd_sr.costs.counting import measure_memory
from mipkd_sr.costs.methods import batch_for, first_step, model_for, take_step
from mipkd_sr.option_types import TrainingOptions

GPUS = {
    'V100': (15.7e12, 900e9, 32),
    'A100': (19.5e12, 1555e9, 40),
    'A100-TF32': (156e12, 1555e9, 40),
    'H100': (67e12, 3350e9, 80),
    'H200': (67e12, 4800e9, 141),
    'RTX4090': (82.6e12, 1008e9, 24),
}
"""Operations a second in single precision, bytes a second of the memory, and GB of it, from the makers' data sheets."""


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
    opt: TrainingOptions,
    method: str,
    flops: float,
    bandwidth: float,
    steps: int = 8,
    utilisation: float = 1.0,
) -> Plan:
    """Expect what a step takes on a device, from one sample that is computed here.

    Time: the roofline, divided by ``utilisation``, the part of it that is reached, in (0, 1]. Memory: what stays from
        step to step, and the rest of a step's peak times the batch size.

    Args:
        opt: Options of a training run under a teacher.
        method: One of ``METHODS``.
        flops: The device's operations a second (a multiply-add being two), in the precision that is used.
        bandwidth: Its memory's bytes a second.
        steps: Steps to average over; MiPKD's differ.
        utilisation: See above.
    """
    one = deepcopy(opt)
    one['num_gpu'] = 0
    batch_size = one['datasets']['train']['batch_size_per_gpu']
    one['datasets']['train']['batch_size_per_gpu'] = 1
    model, batch = model_for(one, method), batch_for(one, torch.device('cpu'))
    take_step(model, batch, 1)  # creates the optimizer's state
    first = first_step(one)
    roofline = _Roofline(flops, bandwidth)
    held, peak = 0, 0
    for number in range(steps):
        with roofline:
            memory = measure_memory(model, batch, first + number)
        held, peak = memory.held, max(peak, memory.peak)
    return Plan(batch_size * roofline.seconds / steps / utilisation, held + batch_size * (peak - held))
