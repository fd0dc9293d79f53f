"""Loading weights into networks, from BasicSR's checkpoints and from those of the networks' authors."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mipkd_sr.archs.official import DERIVED, to_basicsr
from mipkd_sr.runtime.checkpoint import load_file

Net = TypeVar('Net', bound=nn.Module)


def read_weights(file: str | os.PathLike[str], param_key: str = 'params') -> dict[str, Tensor]:
    """The state dict in a BasicSR checkpoint, or in one of EDSR's, RCAN's or SwinIR's authors (under BasicSR's names).

    Args:
        file: A checkpoint: a mapping that has the state dict under ``params`` or ``params_ema``, or a bare state dict.
        param_key: Which to take. ``params`` is taken where ``params_ema`` is asked for and absent.

    Raises:
        ValueError: If the file holds no such thing. The message names it.
    """
    content = load_file(file)
    if not isinstance(content, Mapping):
        raise ValueError(f'{file} holds no weights')
    for key in (param_key, *({'params_ema': ['params']}.get(param_key, []))):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    else:
        if param_key not in ('params', 'params_ema'):  # a bare state dict has neither
            raise ValueError(f"{file} holds nothing under '{param_key}' (it has: {_some_of(content)})")
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no weights under '{param_key}' (it has: {_some_of(content)})")
    return to_basicsr({name.removeprefix('module.'): value for name, value in content.items()})


def _some_of(content: Mapping[Any, Any]) -> str:
    names = [str(name) for name in content]
    return ', '.join(names[:10]) + (' and others' if len(names) > 10 else '')


def load_weights(net: nn.Module, file: str | os.PathLike[str], param_key: str = 'params', strict: bool = True) -> None:
    """Load a BasicSR checkpoint into ``net``, or, where a network reads checkpoints in its own way, let it do so.

    Args:
        net: The network.
        file: The checkpoint.
        param_key: See ``read_weights``.
        strict: Whether the weights must be the network's exactly. If false, those with another name or shape are left
            out, which is said in the log, and the network keeps its own in their place.

    Raises:
        ValueError: If the file holds no weights, or none of this network's, or, when strict, those of another.
    """
    load_checkpoint: Any = getattr(net, 'load_checkpoint', None)
    if load_checkpoint is not None:
        load_checkpoint(file, param_key)
        return
    weights, own = read_weights(file, param_key), net.state_dict()
    for name in [name for name in own if name.endswith(DERIVED)]:
        weights[name] = own[name]
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    loaded = [name for name in fitting if not name.endswith(DERIVED)]
    if (strict or not loaded) and (len(fitting) < len(weights) or len(fitting) < len(own)):
        raise ValueError(f'{file} holds another network than this {type(net).__name__}: {_difference(weights, own)}')
    if left := [name for name in {**own, **weights} if name not in fitting]:
        get_root_logger().warning(
            f'{file}: {len(loaded)} of the {len(own)} weights of {type(net).__name__} were loaded; left out, absent or '
            f'of another shape: {_some_of(dict.fromkeys(left))}'
        )
    net.load_state_dict(fitting, strict=strict)


def fuse(net: Net, fold: bool = False) -> Net:
    """Make each convolution of ``net`` that trains as several the one that it runs as, in place; returns ``net``.

    Modules say how by a method ``fuse``. The output stays, to rounding. With ``fold`` colour mean and range
    go into the first and last convolution where there is a method ``fold_normalisation``; borders differ a little.
    """
    for module in list(net.modules()):
        if callable(own := getattr(module, 'fuse', None)):
            own()
    if fold and callable(own := getattr(net, 'fold_normalisation', None)):
        own()
    return net


def settle(net: Net) -> Net:
    """Make parameters of those that are computed of others (``torch.nn.utils.parametrize``), in place."""
    for module in list(net.modules()):
        if is_parametrized(module):
            values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]  # PyTorch's own removal would be of the copies' as well
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return net


def _difference(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The first of each kind of difference between a checkpoint and a network, in words."""
    parts = []
    for name in weights.keys() & own.keys():
        if weights[name].shape != own[name].shape:
            parts.append(f'{name} is {tuple(weights[name].shape)} in the file and {tuple(own[name].shape)} here')
            break
    absent, surplus = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if absent:
        parts.append(f'the file lacks {len(absent)} of its parameters, such as {absent[0]}')
    if surplus:
        parts.append(f'the file has {len(surplus)} that it lacks, such as {surplus[0]}')
    return '; '.join(parts)
