"""What a training step does: calls of each network, multiply-adds, operators."""

from collections import Counter
from contextlib import contextmanager
from typing import NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mipkd_sr.costs.methods import take_step, uncompiled


class StepCounts(NamedTuple):
    """What a step does: calls of each network from its start, multiply-adds, operators that PyTorch runs."""

    teacher_forwards: int
    student_forwards: int
    multiply_adds: int
    operators: int


class CountOperators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.total += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def count_forwards(nets):
    """Count how often each network's head runs, which every forward goes through once."""
    calls = Counter()
    heads = {name: net.head for name, net in nets.items() if net is not None}

    def counted(name):
        def head(lq):
            calls[name] += 1
            return heads[name](lq)

        return head

    for name in heads:
        nets[name].head = counted(name)
    try:
        yield calls
    finally:
        for name in heads:
            del nets[name].head


def count_step(model, batch, iteration):
    """Count what a step does; the step is taken."""
    nets = {'student': model.net_g, **model.teachers}
    flops = FlopCounterMode(display=False)
    with uncompiled(model), count_forwards(nets) as calls, CountOperators() as operators, flops:
        take_step(model, batch, iteration)
    teacher_calls = sum(calls[name] for name in model.teachers)
    return StepCounts(teacher_calls, calls['student'], flops.get_total_flops() // 2, operators.total)
