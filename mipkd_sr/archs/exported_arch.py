"""Exported files as networks: a student that a runtime of a device runs, to be tested and timed like any other."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.runtime.errors import OptionError, RunError, sentence

Size = tuple[int, int]
Run = Callable[[np.ndarray], np.ndarray]
OVERLAP = 16
"""Pixels that the tiles of a file for one size overlap: of each, half is thrown away."""


class Opened(NamedTuple):
    """A file in its runtime: ``run`` takes and gives N x 3 x H x W in [0, 1]; ``size`` is the only H x W, or None."""

    run: Run
    size: Size | None


def _onnx(file: Path, threads: int) -> Opened:
    runtime: Any = import_module('onnxruntime')
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = runtime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    lq = session.get_inputs()[0]
    return Opened(lambda x: session.run(None, {lq.name: x})[0], _fixed(lq.shape[2:]))


def _openvino(file: Path, threads: int) -> Opened:
    core = import_module('openvino').Core()
    limit = {'INFERENCE_NUM_THREADS': threads} if threads else {}
    model = core.compile_model(str(file), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', **limit})
    shape = model.input(0).partial_shape
    return Opened(lambda x: model(x)[0], None if shape.is_dynamic else _fixed(list(shape.to_shape())[2:]))


def _ncnn(file: Path, threads: int) -> Opened:
    runtime = import_module('ncnn')
    net = runtime.Net()
    if threads:
        net.opt.num_threads = threads
    for switch in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
        setattr(net.opt, switch, False)
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix('.bin'))):
        raise RunError('ncnn lacks one of its layers, or the file beside it, .bin, is not its own')

    def run(x: np.ndarray) -> np.ndarray:
        found = []
        for image in x:
            extractor = net.create_extractor()
            extractor.input('in0', runtime.Mat(np.ascontiguousarray(image)).clone())
            found.append(np.array(extractor.extract('out0')[1]))
        return np.stack(found)

    return Opened(run, None)


def _litert(file: Path, threads: int) -> Opened:
    interpreter = import_module('ai_edge_litert.interpreter').Interpreter(str(file), num_threads=threads or None)
    interpreter.allocate_tensors()
    lq, sr = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(lq['index'], np.ascontiguousarray(_as_levels(x.transpose(0, 2, 3, 1), lq)))
        interpreter.invoke()
        return _as_values(interpreter.get_tensor(sr['index']), sr).transpose(0, 3, 1, 2)

    return Opened(run, _fixed(lq['shape'][1:3]))


def _as_levels(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    kind, (step, zero) = detail['dtype'], detail['quantization']
    if not np.issubdtype(kind, np.integer):
        return values.astype(kind)
    return (values / step + zero).round().clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def _as_values(levels: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    step, zero = detail['quantization']
    whole = np.issubdtype(detail['dtype'], np.integer)
    return ((levels.astype(np.float32) - zero) * step if whole else levels).astype(np.float32)


def _fixed(size: Any) -> Size | None:
    numbers = [side for side in size if isinstance(side, int | np.integer)]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None


RUNTIMES: dict[str, Callable[[Path, int], Opened]] = {
    '.onnx': _onnx,
    '.xml': _openvino,
    '.param': _ncnn,
    '.tflite': _litert,
}
"""What opens a file for a number of threads (0: all), by its ending."""


def open_exported(file: str | Path, threads: int = 0) -> Opened:
    """Open an exported file in its runtime.

    Args:
        file: ``.onnx``, ``.xml`` (OpenVINO), ``.param`` (ncnn, its ``.bin`` beside it) or ``.tflite``.
        threads: Threads to run on; 0 for the runtime's own choice.

    Raises:
        OptionError: If it is none of these, or not there.
        RunError: If its runtime is not installed, or cannot read it.
    """
    file = Path(file)
    if file.suffix not in RUNTIMES:
        raise OptionError(
            'file', f'{file} ends in none of {", ".join(RUNTIMES)}; give a file that a runtime here runs.'
        )
    if not file.is_file():
        raise OptionError('file', f'there is no {file}; mipkd export and mipkd quantize make such files.')
    try:
        return RUNTIMES[file.suffix](file, threads)
    except ModuleNotFoundError as error:
        raise RunError(f"{error.name} is not installed, which runs {file}; pip install 'mipkd_sr[device]'.") from None
    except Exception as error:  # each runtime has its own
        raise RunError(f'{file} cannot be opened by its runtime: {sentence(error)[:300]}') from error


def in_windows(net: Callable[[Tensor], Tensor], lq: Tensor, size: Size, overlap: int = OVERLAP) -> Tensor:
    """Run a network of one size on an image of any (B x C x H x W): in windows of that ``size``, which overlap.

    An image smaller than a window is continued by its edge. Of what two windows share, the middle is where one ends and
    the next begins.
    """
    height, width = lq.shape[-2:]
    padded = F.pad(lq, (0, max(size[1] - width, 0), 0, max(size[0] - height, 0)), 'replicate')
    rows, columns = (_windows(*pair, overlap) for pair in zip(padded.shape[-2:], size, strict=True))
    sr: Tensor | None = None
    for (top, first, last), (left, start, stop) in product(rows, columns):
        output = net(padded[..., top : top + size[0], left : left + size[1]])
        scale = output.shape[-1] // size[1]
        if sr is None:
            sr = output.new_empty(*output.shape[:-2], padded.shape[-2] * scale, padded.shape[-1] * scale)
        sr[..., first * scale : last * scale, start * scale : stop * scale] = output[
            ..., (first - top) * scale : (last - top) * scale, (start - left) * scale : (stop - left) * scale
        ]
    assert sr is not None
    return sr[..., : height * scale, : width * scale]


def _windows(length: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Each window's beginning, and the part of the line that is taken from it."""
    step = max(size - overlap, 1)
    starts = [*range(0, length - size, step), length - size]
    borders = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return [(start, *part) for start, part in zip(starts, pairwise(borders), strict=True)]


@ARCH_REGISTRY.register()
class Exported(nn.Module):
    """A network in a file of another runtime, run by that: a row of a test beside the network that it came from.

    Args:
        file: See ``open_exported``.
        upscale: Its scale.
        threads: Threads to run on; 0 for the runtime's own choice.

    Raises:
        OptionError: If there is no such file.
        RunError: If its runtime cannot open it.
    """

    def __init__(self, file: str, upscale: int = 4, threads: int = 0) -> None:
        super().__init__()
        self.upscale = upscale
        self.opened = open_exported(file, threads)

    def forward(self, lq: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x sH x sW; a file of one size is run in windows of it."""
        size = self.opened.size
        run = partial(run_array, self.opened.run)
        return run(lq) if size is None or size == lq.shape[-2:] else in_windows(run, lq, size)


def run_array(run: Run, lq: Tensor) -> Tensor:
    """Call what takes and gives arrays with a tensor, an image at a time."""
    images = [run(image.numpy()) for image in lq.detach().cpu().float().contiguous().split(1)]
    return torch.from_numpy(np.concatenate(images)).to(lq.device)
