"""Starting a student from a slice of its teacher's channels: nearly free, and hard to beat for narrow students."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

JOINED = {'qkv': 3}
"""Layers whose outputs are several maps joined (SwinIR's queries, keys and values), and how many."""


def check_sliceable(teacher: Mapping[str, Tensor], student: nn.Module, method: str) -> None:
    """Check that the student is the teacher, of which this is the state dict, but for its width; ``method`` is what
    needs it.

    Raises:
        ValueError: If it is not.
    """
    own = student.state_dict()
    reason = f'{method} needs a student of the same architecture and depth as the teacher, and no wider'
    if own.keys() != teacher.keys():
        differing = sorted(own.keys() ^ teacher.keys())[0]
        raise ValueError(f'{reason}; only one of them has {differing}')
    for name, value in own.items():
        whole = teacher[name].shape
        if len(whole) != len(value.shape) or any(a > b for a, b in zip(value.shape, whole, strict=True)):
            raise ValueError(f'{reason}; {name} is {tuple(value.shape)} in it and {tuple(whole)} in the teacher')


@torch.no_grad()
def slice_teacher(teacher: Mapping[str, Tensor], student: nn.Module) -> None:
    """Give each of the student's parameters, in place, the first channels of the teacher's, of which this is the state
    dict.

    Raises:
        ValueError: If the student is not the teacher but for its width.
    """
    check_sliceable(teacher, student, 'starting from a slice of the teacher')
    for name, parameter in student.named_parameters():
        parts = next((count for layer, count in JOINED.items() if f'.{layer}.' in name), 1)
        wanted = [parameter.shape[0] // parts, *parameter.shape[1:]]
        sliced = [part[tuple(slice(size) for size in wanted)] for part in teacher[name].chunk(parts)]
        parameter.copy_(torch.cat(sliced))
