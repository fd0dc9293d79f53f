"""Reading and writing weights and training states."""

import json
import os
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipkd_sr.archs.official import DERIVED, to_basicsr
from mipkd_sr.engine.files import written_whole


def save_atomically(content: Any, file: str | os.PathLike[str]) -> None:
    """``torch.save``, so that ``file`` is never half-written.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    buffer = BytesIO()  # torch.save into a file reports a full disk as an error of its own zip writer
    torch.save(content, buffer)
    with written_whole(file, durable=True) as part:
        part.write_bytes(buffer.getbuffer())


def write_json(content: Any, file: str | os.PathLike[str]) -> None:
    """Write JSON, so that ``file`` is never half-written.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    with written_whole(file, durable=True) as part:
        part.write_text(json.dumps(content, indent=1), encoding='utf-8')


def load_file(file: str | os.PathLike[str], verify: bool = False) -> Any:
    """Load a file of tensors and plain values onto the CPU. Pickled code is refused.

    Args:
        file: The file.
        verify: Whether to compare its contents with the checksums that ``torch.save`` keeps in it.

    Raises:
        ValueError: If the file cannot be read as one. The message names it.
    """
    try:
        if verify:
            with zipfile.ZipFile(file) as archive:
                if broken := archive.testzip():
                    raise ValueError(f'{broken} in it does not have its checksum')
        return torch.load(file, map_location='cpu', weights_only=True)
    except OSError as error:
        raise ValueError(f'{file} cannot be read ({error.strerror})') from None
    except Exception as error:  # torch.load has no exception of its own for broken or hostile files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f'{file} is not a checkpoint that can be loaded safely ({reason})') from None


def numbered_states(folder: str | os.PathLike[str]) -> list[Path]:
    """The training states in ``folder``, ``<iteration>.state`` each, the newest first."""
    states = [file for file in Path(folder).glob('*.state') if file.stem.isdigit()]
    return sorted(states, key=lambda file: int(file.stem), reverse=True)


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
    for key in (param_key, 'params'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no weights under '{param_key}' (it has: {', '.join(map(str, content))})")
    return to_basicsr({name.removeprefix('module.'): value for name, value in content.items()})


def load_weights(net: nn.Module, file: str | os.PathLike[str], param_key: str = 'params', strict: bool = True) -> None:
    """Load a BasicSR checkpoint into ``net``.

    Args:
        net: The network.
        file: The checkpoint.
        param_key: See ``read_weights``.
        strict: Whether the weights must be the network's exactly. If false, those with another name or shape are left
            out, and the network keeps its own in their place.

    Raises:
        ValueError: If the file holds no weights, or, when strict, those of another network.
    """
    weights, own = read_weights(file, param_key), net.state_dict()
    for name in [name for name in own if name.endswith(DERIVED)]:
        weights[name] = own[name]
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if strict and (len(fitting) < len(weights) or len(fitting) < len(own)):
        raise ValueError(f'{file} holds another network than this {type(net).__name__}: {_difference(weights, own)}')
    net.load_state_dict(fitting, strict=strict)


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
