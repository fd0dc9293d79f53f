"""8 bits: finding a student's ranges, and files in which a runtime computes with whole numbers."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import HistogramObserver

from mipkd_sr.archs.exported_arch import Size, in_windows
from mipkd_sr.archs.quantized_arch import Quantized
from mipkd_sr.archs.weights import settle
from mipkd_sr.deploy import formats
from mipkd_sr.deploy.exporting import quiet, require, verify
from mipkd_sr.deploy.formats import Plan
from mipkd_sr.deploy.shapes import TransposedShuffle, limits_of
from mipkd_sr.runtime.checkpoint import save_atomically, write_digest
from mipkd_sr.runtime.errors import OptionError, RunError, sentence
from mipkd_sr.runtime.files import atomic_write

NEEDS = {'.onnx': ('onnx', 'onnxscript', 'onnxruntime'), '.pth': ()}
NEEDS['.tflite'] = ('litert_torch', 'ai_edge_litert', 'ai_edge_quantizer')
LITERT_SAME_VALUES = {'PAD', 'PADV2', 'MIRROR_PAD', 'RESHAPE', 'TRANSPOSE', 'RESIZE_NEAREST_NEIGHBOR', 'DEPTH_TO_SPACE'}
"""LiteRT's operators whose output has the values of the input, and so its step and zero."""
LEAST_PSNR = 35.0
"""What a runtime's output must have, in dB, to PyTorch's simulation of it: a guard against files that are wrong."""


def quantize(
    net: nn.Module, images: Sequence[Tensor], files: Sequence[Path], size: Size | None = None
) -> Iterator[str]:
    """Write a network of 8 bits; each file is run on photographs and compared with PyTorch's simulation.

    Files have the steps of the simulation: ONNX by QuantizeLinear and DequantizeLinear, weights alone with a sign. For
    what LiteRT adds to the network, they are found alike. ``.pth`` is what training at 8 bits begins with, for
    ``network_g: {type: Quantized, network: ...}``.

    Args:
        net: The network: of single precision, or one trained as ``Quantized``.
        images: LR images, 1 x 3 x H x W in [0, 1], by which the ranges are found; none for a trained ``Quantized``.
        files: ``.onnx``, ``.tflite`` and ``.pth``.
        size: The only size that the files are for; LiteRT's must have one.

    Yields:
        What was written, in words, file by file.

    Raises:
        OptionError: Before anything is written, if a file cannot be asked for so, or the images are none.
        RunError: If a format cannot hold the network, or its runtime computes something else; nothing is left of it.
    """
    for file in files:
        if file.suffix not in NEEDS:
            raise OptionError('--out', f'{file} ends in none of {", ".join(NEEDS)}; name the file by its format.')
        if file.exists():
            raise OptionError('--out', f'{file} is there already; give another name, or remove it.')
        if file.suffix == '.tflite' and size is None:
            raise OptionError('--size', 'is missing: LiteRT holds a network for one size of image; give 360x640.')
        require(NEEDS[file.suffix], str(file))
    own = net if isinstance(net, Quantized) else Quantized(net)
    if not images and (own.steps.isnan().any() or any(file.suffix == '.tflite' for file in files)):
        raise OptionError('--images', 'is missing: a folder of images like those that the student will get.')
    if own.steps.isnan().any():
        own.calibrate(images)
    own.eval()
    plan = Plan(size, False, limits_of(own), {'network': type(own.net).__name__, 'precision': 'int8'}, {}, '')
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == '.pth':
            save_atomically({'params': own.state_dict()}, file)
            yield f'{file}: for network_g: {{type: Quantized, network: ...}}'
            continue
        with atomic_write(file) as named:
            part = named.with_suffix(file.suffix)
            try:
                with quiet(), torch.no_grad():
                    _onnx(own, part, plan) if file.suffix == '.onnx' else _litert(own, part, plan, images)
                said = verify(own, part, plan, LEAST_PSNR)
            except (OSError, RunError, ImportError):
                raise
            except Exception as error:  # each converter has its own for networks that its format cannot hold
                raise RunError(f'{file} cannot be written: {sentence(error)[:300]}') from error
            finally:
                if part.exists():
                    part.replace(named)
        write_digest(file)
        yield f'{file}: {said}'


def _onnx(own: Quantized, file: Path, plan: Plan) -> None:
    settled = settle(deepcopy(own))
    with settled.told_to_runtimes():
        formats.onnx(settled, file, plan)
    onnx: Any = import_module('onnx')
    model = onnx.load(str(file))
    store_whole_numbers(model.graph)
    onnx.save(model, str(file))


def store_whole_numbers(graph: Any) -> None:
    """In an ONNX graph: compute what is made of weights alone up to whole numbers, and keep these in their place."""
    onnx, reference = import_module('onnx'), import_module('onnx.reference')
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == 'DequantizeLinear' or not all(name in known for name in node.input if name):
            continue
        values = {name: known[name] for name in node.input if name}
        for name, value in zip(node.output, reference.ReferenceEvaluator(node).run(None, values), strict=True):
            known[name] = value
            graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _litert(own: Quantized, file: Path, plan: Plan, images: Sequence[Tensor]) -> None:
    formats.litert(settle(deepcopy(own.net)), file, plan)
    assert plan.size is not None
    ranges = _ranges(own, file, images, plan.size)
    quantizer, recipe = (import_module(f'ai_edge_quantizer.{name}') for name in ('quantizer', 'recipe'))
    work = quantizer.Quantizer(str(file))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    work.quantize(ranges).export_model(str(file), overwrite=True)


def _keep(values: list[tuple[int, Tensor]], point: int, value: Tensor) -> None:
    if value.ndim == 4:
        values.append((point, value.permute(0, 2, 3, 1).clone()))  # the next operator may work in place


def _same(values: Sequence[tuple[int, Tensor]], value: Tensor) -> int | None:
    """The point that has a tensor's values, to rounding."""
    for point, other in values:
        if other.shape == value.shape and (other - value).abs().max() <= 1e-4 * value.abs().max():
            return point
    return None


def _ranges(own: Quantized, file: Path, images: Sequence[Tensor], size: Size) -> dict[str, dict[str, np.ndarray]]:
    """Least and greatest value of each tensor of a LiteRT file, by its name: ``own``'s, where it has the same values.

    Others are found as ``Quantized.calibrate`` does. The quantiser's own are moving averages of extremes: what is rare
    is cut off, which costs students half a dB.
    """
    module = import_module('ai_edge_litert.interpreter')
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = module.Interpreter(
        str(file), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    tensors = {detail['index']: detail for detail in interpreter.get_tensor_details()}
    lq, sr = (details()[0]['index'] for details in (interpreter.get_input_details, interpreter.get_output_details))
    operators = interpreter._get_ops_details()
    observers = {int(index): HistogramObserver() for op in operators for index in op['outputs']}

    def see(window: Tensor) -> Tensor:
        interpreter.set_tensor(lq, window.permute(0, 2, 3, 1).contiguous().numpy())
        interpreter.invoke()
        for index, observer in observers.items():
            observer(torch.from_numpy(interpreter.get_tensor(index)))
        return window

    for image in images:
        in_windows(see, image, size)
    window = torch.from_numpy(interpreter.get_tensor(lq)).permute(0, 3, 1, 2)
    values: list[tuple[int, Tensor]] = []
    own.observe([window], [partial(_keep, values, point) for point in range(len(own.points))])
    steps, zeros = own.levels()
    found = {lq: (0.0, 1.0)}
    for index, observer in observers.items():
        point = _same(values, torch.from_numpy(interpreter.get_tensor(index)))
        step, zero = observer.calculate_qparams() if point is None else (steps[point], zeros[point])
        found[index] = float(-zero * step), float((255 - zero) * step)
    same = [
        ({int(index) for index in op['inputs']} & found.keys(), {int(index) for index in op['outputs']})
        for op in operators
        if op['op_name'] in LITERT_SAME_VALUES
        or any(TransposedShuffle.__name__ in tensors[i]['name'] for i in op['outputs'])
    ]
    for taken, given in same:
        found |= {index: found[one] for index in given for one in taken}
    last = {sr}
    for taken, given in reversed(same):
        last |= taken if given & last else set()
    found |= dict.fromkeys(last, found[lq])  # a photograph's 8 bits
    return {
        tensors[index]['name']: {
            end: np.full([1] * len(tensors[index]['shape']), value, np.float32)
            for end, value in zip(('min', 'max'), values, strict=True)
        }
        for index, values in found.items()
    }
