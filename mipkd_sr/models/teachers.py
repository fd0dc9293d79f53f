"""The teachers that an option file names: one, or several by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mipkd_sr.archs.loading import NetworkOptions
from mipkd_sr.archs.slicing import slice_teacher
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.runtime.errors import OptionError, sentence

ONLY = 'teacher'
"""The name of a teacher that is the only one."""
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
"""Types of the arithmetic in the networks, by their names in option files."""


def student_options(opt: Mapping[str, Any]) -> NetworkOptions:
    """What the option file says of the student, ``network_g``."""
    path = opt['path']
    file, key = path.get('pretrain_network_g'), 'path:pretrain_network_g'
    return NetworkOptions(
        opt['network_g'], file, path['param_key_g'], 'network_g', key, strict=path.get('strict_load_g', True)
    )


def teacher_options(opt: Mapping[str, Any]) -> dict[str, NetworkOptions]:
    """What the option file says of each teacher, by name; ``network_t`` is one network, or several by name."""
    networks = opt.get('network_t')
    if not networks:
        return {}
    path, precision = opt['path'], opt.get('train', {}).get('teacher_precision')
    found, single = {}, isinstance(networks.get('type'), str)
    for name, network in ({ONLY: networks} if single else networks).items():
        place = '' if single else f':{name}'
        given = (path.get('pretrain_network_t'), path.get('param_key_t'), precision)
        file, param_key, own = (_own(value, name) for value in given)
        keys = f'network_t{place}', f'path:pretrain_network_t{place}'
        found[name] = NetworkOptions(network, file, param_key or 'params_ema', *keys, own, any_scale=True)
    return found


def _own(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else value


def frozen(nets: Mapping[str, nn.Module], opt: Mapping[str, Any]) -> dict[str, FrozenTeacher]:
    """The teachers, frozen, each with its precision."""
    options = teacher_options(opt)
    return {name: FrozenTeacher(net, PRECISIONS.get(options[name].precision or '')) for name, net in nets.items()}


def slice_student(student: nn.Module, teachers: Mapping[str, nn.Module], opt: Mapping[str, Any]) -> None:
    """Start the student from the teacher's channels, where ``path:init_network_g`` says so."""
    if opt['path']['init_network_g'] is None:
        return
    if len(teachers) != 1:
        raise OptionError('path:init_network_g', 'needs one teacher; add network_t, with one network.')
    try:
        slice_teacher(next(iter(teachers.values())).state_dict(), student)
    except ValueError as error:
        raise OptionError('path:init_network_g', sentence(error)) from None
