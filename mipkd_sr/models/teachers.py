"""The teachers that an option file names: one, or several by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.runtime.errors import OptionError, blamed_on

ONLY = 'teacher'
"""The name of a teacher that is the only one."""
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
"""Types of the arithmetic in the networks, by their names in option files."""


@dataclass(frozen=True)
class NetworkOptions:
    """What an option file says of one network.

    Attributes:
        network: Its class and arguments.
        file: The checkpoint of its weights, or None.
        param_key: Which weights of that file.
        key: The option that names the network, for errors.
        file_key: The option that names the checkpoint, for errors.
        precision: Of a teacher's own forward, or None.
        strict: Whether the file must fit exactly.
    """

    network: Mapping[str, Any]
    file: str | None
    param_key: str
    key: str
    file_key: str
    precision: str | None = None
    strict: bool = True


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
    file, param_key = path.get('pretrain_network_t'), path.get('param_key_t')
    if isinstance(networks.get('type'), str):
        return {ONLY: NetworkOptions(networks, file, param_key, 'network_t', 'path:pretrain_network_t', precision)}
    return {
        name: NetworkOptions(
            network,
            _own(file, name),
            _own(param_key, name) or 'params_ema',
            f'network_t:{name}',
            f'path:pretrain_network_t:{name}',
            _own(precision, name),
        )
        for name, network in networks.items()
    }


def _own(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else value


def build_loaded(options: NetworkOptions, scale: int, device: torch.device) -> nn.Module:
    """Build a network, load its weights if there is a file, and move it to the device.

    Raises:
        OptionError: If it cannot be built, is of another scale, or the file is not its.
    """
    with blamed_on(options.key):
        net = build_network(options.network)
    own_scale = getattr(net, 'upscale', options.network.get('upscale'))
    if own_scale not in (None, scale):
        raise OptionError(f'{options.key}:upscale', f'is {own_scale}, but scale is {scale}; make them the same.')
    if options.file:
        try:
            load_weights(net, options.file, options.param_key, options.strict)
        except ValueError as error:
            raise OptionError(options.file_key, f'{error}; give the file of this {options.key}.') from None
    return net.to(device)


def frozen(nets: Mapping[str, nn.Module], opt: Mapping[str, Any]) -> dict[str, FrozenTeacher]:
    """The teachers, frozen, each with its precision."""
    options = teacher_options(opt)
    return {name: FrozenTeacher(net, PRECISIONS.get(options[name].precision or '')) for name, net in nets.items()}
