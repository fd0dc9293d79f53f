"""Using a trained student outside of training: loading it, upscaling images with it, exporting it."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.data.imresize import imresize
from mipkd_sr.engine.checkpoint import load_weights, save_atomically
from mipkd_sr.engine.errors import OptionError, RunError, sentence
from mipkd_sr.engine.files import written_whole
from mipkd_sr.engine.inference import Network
from mipkd_sr.engine.options import read_options

FORMATS = ('.onnx', '.safetensors', '.pth')
ONNX_TOLERANCE = 1e-4
"""Greatest difference between onnxruntime's output and torch's, for values in [0, 1]."""


def load_student(option_file: str | os.PathLike[str], weights: str | os.PathLike[str]) -> nn.Module:
    """The student (``network_g``) of an option file, with its weights: the moving average where the file has it.

    Args:
        option_file: An option file; that of a run is kept in its experiment's folder.
        weights: The student's checkpoint.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        OptionError: If the option file has no such network, or the checkpoint is not its.
    """
    opt = read_options(option_file).data
    try:
        net = build_network(opt['network_g'])
        load_weights(net, weights, 'params_ema')
    except KeyError as error:
        raise OptionError('network_g', f'is missing in {option_file}, or has no {error}; give another -opt.') from None
    except (ValueError, TypeError, AssertionError) as error:
        raise OptionError('network_g', sentence(error)) from None
    return net.eval()


def read_any(file: Path) -> np.ndarray:
    """Read an image as it is: H x W (x 3 or 4, BGR and alpha), 8 or 16 bits; a photograph is turned upright.

    Raises:
        RunError: If it cannot be read.
    """
    as_it_is = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # these two let OpenCV turn it as its EXIF data says
    image = cv2.imread(str(file), as_it_is if file.suffix.lower() in ('.jpg', '.jpeg') else cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise RunError(f'{file} cannot be read as an image of 8 or 16 bits; remove it or replace it.')
    return image


@torch.no_grad()
def upscale(net: Network, image: np.ndarray, device: torch.device) -> np.ndarray:
    """Upscale an image of any form; the form stays.

    Args:
        net: The network.
        image: H x W (grey), H x W x 3 (BGR) or H x W x 4 (with alpha, which is resized bicubically), 8 or 16 bits.
        device: Where the network is.

    Returns:
        sH x sW (x C), of the same type.

    Raises:
        RunError: If the output is not finite.
    """
    top = float(np.iinfo(image.dtype).max)
    planes = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None] / top
    colour = planes[:, :3].flip(1) if planes.shape[1] >= 3 else planes[:, :1].expand(-1, 3, -1, -1)
    sr = net(colour.to(device)).float().cpu()
    if not torch.isfinite(sr).all():
        raise RunError('the output is not finite: the weights have diverged; no image was written.')
    parts = [sr.flip(1) if planes.shape[1] >= 3 else sr.mean(1, keepdim=True)]
    if planes.shape[1] in (2, 4):
        parts.append(imresize(planes[:, -1:], sr.shape[-1] // planes.shape[-1]))
    whole = torch.cat(parts, 1)[0].clamp(0, 1).mul(top).round().permute(1, 2, 0).numpy()
    return whole.astype(image.dtype).reshape(*whole.shape[:2], *image.shape[2:])


def export(net: nn.Module, file: Path, size: int) -> str:
    """Write a network to a file, in the format that its ending names.

    * ``.onnx``: input ``lq`` (N x 3 x H x W, values in [0, 1]), output ``sr``; compared with onnxruntime's output at
      two sizes before it is written. N, H and W are free, except for networks with windows (SwinIR), whose padding
      depends on the size: there H = W = ``size``.
    * ``.safetensors``: the weights alone, under BasicSR's names.
    * ``.pth``: BasicSR's form, ``{'params': weights}``.

    Args:
        net: The network, on the CPU, in evaluation mode.
        file: The file to write; it must not be there.
        size: Side of the image that an ONNX file is made with.

    Returns:
        What was written, in words.

    Raises:
        RunError: If the format is not known, the file is there already, or ONNX computes something else.
    """
    if file.suffix not in FORMATS:
        raise RunError(f'{file} ends in none of {", ".join(FORMATS)}; name the file by the format that you want.')
    if file.exists():
        raise RunError(f'{file} is there already; give another name, or remove it.')
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.onnx':
        return _export_onnx(net, file, size)
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    if file.suffix == '.pth':
        save_atomically({'params': weights}, file)
    else:
        from safetensors.torch import save_file  # an optional dependency: pip install mipkd_sr[export]

        with written_whole(file) as part:
            save_file(weights, part)
    return f'{file}: {len(weights)} tensors'


@torch.no_grad()
def _export_onnx(net: nn.Module, file: Path, size: int) -> str:
    import onnxruntime  # an optional dependency, as is what torch needs to write the file: mipkd_sr[export]

    is_fixed = hasattr(net, 'window_size')
    free = torch.export.Dim
    dimensions: Any = None if is_fixed else ({0: free('n'), 2: free('h', min=8), 3: free('w', min=8)},)
    sizes = [(size, size)] if is_fixed else [(size, size), (size + 9, size + 5)]
    with written_whole(file) as part:
        torch.onnx.export(
            net,
            (torch.rand(1, 3, size, size if is_fixed else size + 4),),
            str(part),
            input_names=['lq'],
            output_names=['sr'],
            dynamic_shapes=dimensions,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(str(part), providers=['CPUExecutionProvider'])
        for height, width in sizes:
            lq = torch.rand(1, 3, height, width)
            error = float(np.abs(session.run(None, {'lq': lq.numpy()})[0] - net(lq).numpy()).max())
            if not error <= ONNX_TOLERANCE:
                raise RunError(f'onnxruntime differs from torch by {error:.1e} at {height} x {width}; nothing written.')
    sides = f'{size} x {size} pixels only' if is_fixed else 'any size'
    return f'{file}: for images of {sides}, as torch to {ONNX_TOLERANCE:.0e} at {len(sizes)} size(s)'
