"""Writing a network in the forms that others read; each file is run by its runtime before it stays."""

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mipkd_sr.archs.exported_arch import Size, in_windows, open_exported, run_array
from mipkd_sr.archs.weights import fuse
from mipkd_sr.deploy import formats
from mipkd_sr.deploy.formats import Plan
from mipkd_sr.deploy.layouts import check_by_spandrel, weights_in_layout
from mipkd_sr.deploy.shapes import Padded, channels_of, limits_of
from mipkd_sr.runtime.checkpoint import write_digest
from mipkd_sr.runtime.errors import OptionError, RunError, sentence
from mipkd_sr.runtime.files import atomic_write

TOLERANCE = {'fp32': 1e-4, 'fp16': 0.03}
"""Greatest difference between a runtime's output and PyTorch's in single precision, for values in [0, 1]."""
LEAST_PSNR = {'fp32': 80.0, 'fp16': 50.0}
"""The same as a mean over the photograph, in dB."""


class Format(NamedTuple):
    """A form of file.

    Attributes:
        ending: Of the file's name.
        needs: Modules that must be there.
        write: Writes the network to a file.
        images: How images stand in it; nothing where it holds weights alone.
        one_size: Whether it holds a network for one size of image alone.
        any_size: Whether it takes any size that the network takes, whatever was asked for.
        run: Whether its runtime runs here.
    """

    ending: str
    needs: tuple[str, ...]
    write: Callable[[nn.Module, Path, Plan], None]
    images: str = '1 x 3 x H x W, RGB, values 0 to 1'
    one_size: bool = False
    any_size: bool = False
    run: bool = True


FORMATS = {
    'onnx': Format('.onnx', ('onnx', 'onnxscript', 'onnxruntime'), formats.onnx, 'N x 3 x H x W, RGB, values 0 to 1'),
    'openvino': Format('.xml', ('onnx', 'onnxscript', 'openvino'), formats.openvino),
    'ncnn': Format(
        '.ncnn.param', ('pnnx', 'ncnn'), formats.ncnn, '3 x H x W, RGB, values 0 to 1; blobs in0, out0', any_size=True
    ),
    'litert': Format(
        '.tflite', ('litert_torch', 'ai_edge_litert'), formats.litert, '1 x H x W x 3, RGB, values 0 to 1', True
    ),
    'coreml': Format('.mlpackage', ('coremltools',), formats.coreml, 'an RGB image of 8 bits', True, run=False),
    'safetensors': Format('.safetensors', ('safetensors',), formats.safetensors, '', run=False),
    'pth': Format('.pth', (), formats.pth, '', run=False),
}
WEIGHTS = ('safetensors', 'pth')


def export(
    net: nn.Module,
    out: Path,
    to: Sequence[str] = (),
    size: Size | None = None,
    half: bool = False,
    layout: str = 'basicsr',
) -> Iterator[str]:
    """Write a network to a file of each format; each is run on a photograph and compared with PyTorch before it stays.

    Convolutions that train as several are made one. ``.sha256`` of each single file is written beside it.

    Args:
        net: The network, on the CPU.
        out: The file, whose ending names the format; or with ``to`` the files' name without ending, beside which a card
            is written, ``OUT.md``.
        to: Names of ``FORMATS``.
        size: Height and width of the LR image where the files are for one size alone; else images of any size, where
            the format can.
        half: Whether weights, and arithmetic where the device likes, are of half precision.
        layout: Names of the weights, for safetensors and pth; see ``mipkd_sr.deploy.layouts``.

    Yields:
        What was written, in words, file by file.

    Raises:
        OptionError: Before anything is written, if a format is not known or its tools are not installed, a file is
            there, the size does not fit the network or is missing, or the layout cannot tell of this network.
        RunError: At the end, if a format cannot hold the network, or its runtime computes something else; that file is
            not left behind.
    """
    targets = targets_of(out, to)
    _check(targets, size, half, layout)
    net = fuse(deepcopy(net).eval())
    if set(targets) & set(WEIGHTS):
        weights = weights_in_layout(net, layout)
        if layout == 'spandrel':
            check_by_spandrel(net, weights)
    limits = limits_of(net) if set(targets) - set(WEIGHTS) else None
    if limits and size and (min(size) < limits.least or any(side % limits.multiple for side in size)):
        raise OptionError('--size', f'must be {limits.words()}, for this network; not {size[0]}x{size[1]}.')
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, failures = [], []
    for name, file in targets.items():
        form = FORMATS[name]
        plan = Plan(size, half, limits, {}, weights if name in WEIGHTS else {}, layout)
        plan.metadata.update(_metadata(net, form, plan))
        try:
            checks = _write(net, file, form, plan)
        except RunError as error:
            failures.append(str(error))
            continue
        rows.append(f'| {file.name} | {plan.metadata["images"]} | {plan.metadata["sizes"]} | {checks} |')
        yield f'{file}: {plan.metadata["sizes"]}; {checks}'
    if to and rows:
        write_card(out, net, rows, half)
    if failures:
        raise RunError(' '.join(failures))


def targets_of(out: Path, to: Sequence[str]) -> dict[str, Path]:
    """The file of each format.

    Raises:
        OptionError: If a format is not known.
    """
    of_name = next((name for name, form in FORMATS.items() if out.name.endswith(form.ending)), None)
    if not to:
        if of_name is None:
            endings = ', '.join(form.ending for form in FORMATS.values())
            raise OptionError('--out', f'{out} ends in none of {endings}; name the file so, or give --to.')
        return {of_name: out}
    if unknown := [name for name in to if name not in FORMATS]:
        raise OptionError('--to', f"there is no format '{unknown[0]}'; there are: {', '.join(FORMATS)}.")
    stem = out.name.removesuffix(FORMATS[of_name].ending) if of_name else out.name
    return {name: out.with_name(stem + FORMATS[name].ending) for name in to}


def _check(targets: dict[str, Path], size: Size | None, half: bool, layout: str) -> None:
    for name, file in targets.items():
        require(FORMATS[name].needs + (('ai_edge_quantizer',) if half and name == 'litert' else ()), name)
        if file.exists():
            raise OptionError('--out', f'{file} is there already; give another name, or remove it.')
        if FORMATS[name].one_size and size is None:
            raise OptionError('--size', f'is missing: {name} holds a network for one size of image; give 360x640.')
        if layout != 'basicsr' and name not in WEIGHTS:
            raise OptionError('--layout', f'is for weights; {file} has none by name.')


def require(modules: Sequence[str], what: str) -> None:
    """See that what an extra installs is there.

    Raises:
        OptionError: If it is not.
    """
    for module in modules:
        if find_spec(module) is None:
            extra = 'export' if module in ('onnx', 'onnxscript', 'onnxruntime', 'safetensors') else 'device'
            raise OptionError('', f"{what} needs {module}, not installed here; pip install 'mipkd_sr[{extra}]'.")


def _metadata(net: nn.Module, form: Format, plan: Plan) -> dict[str, str]:
    sizes = f'{plan.size[0]} x {plan.size[1]} alone' if plan.size else 'images of any size'
    if plan.limits is None or not form.images:
        sizes = 'weights'
    elif form.any_size or (plan.limits.windows and not plan.size):  # these do not pad
        sizes = plan.limits.words()
    return {
        'network': type(net).__name__,
        'images': form.images if channels_of(net) == 3 else _in_grey(form.images),
        'sizes': sizes,
        'precision': 'fp16' if plan.half else 'fp32',
        'made_by': 'mipkd_sr',
    }


def _in_grey(images: str) -> str:
    return images.replace('RGB', 'grey').replace('3 x', '1 x').replace('x 3', 'x 1')


def _write(net: nn.Module, file: Path, form: Format, plan: Plan) -> str:
    """Write one file, run it, and move it to where it belongs, with what stands beside it; returns the checks."""
    with tempfile.TemporaryDirectory(prefix='.export', dir=file.parent) as folder:
        part = Path(folder, file.name)
        try:
            with quiet(), torch.no_grad():
                form.write(net, part, plan)
            checks = verify(net, part, plan) if form.run else formats.check_spec(part, plan)
        except (OSError, RunError, ImportError):
            raise
        except Exception as error:  # each converter has its own for networks that its format cannot hold
            raise RunError(f'{type(net).__name__} cannot be written as {file.name}: {sentence(error)[:300]}') from error
        for made in sorted(Path(folder).iterdir(), key=lambda made: made == part):  # the file that is asked for, last
            if made == part or made.name == part.with_suffix('.bin').name:
                target = file.with_name(made.name)
                if target.is_dir():
                    shutil.rmtree(target)
                shutil.move(made, target)
    if file.suffix in ('.onnx', '.safetensors'):
        write_digest(file)
    return checks


def photograph(size: Size) -> Tensor:
    """A photograph of a size, 1 x 3 x H x W in [0, 1]; it is mirrored at its edges where it is too small."""
    import skimage

    whole = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    rows, columns = (torch.arange(side) % 1024 for side in size)
    rows, columns = (torch.where(index < 512, index, 1023 - index) for index in (rows, columns))
    return whole[:, :, rows][:, :, :, columns].contiguous()


@torch.no_grad()
def verify(net: nn.Module, file: Path, plan: Plan, least: float | None = None) -> str:
    """Run an exported file on photographs and compare it with PyTorch: a size that it is for, and an odd one.

    Args:
        net: The network in PyTorch.
        file: The file.
        plan: What it is for.
        least: The PSNR that it must have to PyTorch's output, and no other bound; that of the precision if None.

    Raises:
        RunError: If they differ.
    """
    assert plan.limits is not None
    opened, worst, psnr = open_exported(file), 0.0, torch.inf
    odd = (97, 131) if plan.limits.padded(file) else tuple(plan.limits.fit(side) for side in (97, 131))
    reference: Callable[[Tensor], Tensor] = Padded(net, plan.limits) if plan.limits.padded(file) else net
    run = partial(run_array, opened.run)
    for size in ((plan.size or odd), (plan.limits.fit(odd[0] + 60), plan.limits.fit(odd[1] + 41))):
        lq = photograph((size[0], size[1]))[:, : channels_of(net)]
        if opened.size:
            expected, found = in_windows(reference, lq, opened.size), in_windows(run, lq, opened.size)
        else:
            expected, found = reference(lq), run(lq)
        difference = (found - expected).abs()
        worst = max(worst, float(difference.max()))
        psnr = min(psnr, float(-10 * difference.double().pow(2).mean().log10()))
    precision = 'fp16' if plan.half else 'fp32'
    tolerance, wanted = (1.0, least) if least else (TOLERANCE[precision], LEAST_PSNR[precision])
    if not (worst <= tolerance and psnr >= wanted):
        raise RunError(f'{file.name} differs from PyTorch by {worst:.1e}, {psnr:.1f} dB, in its runtime; not written.')
    return f'as PyTorch to {worst:.1e}, {min(psnr, 200):.1f} dB'


@contextmanager
def quiet() -> Iterator[None]:
    """Converters talk, from C++ too: a context in which nothing of it is heard."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.disable(logging.WARNING)
    kept = [os.dup(stream) for stream in (1, 2)]
    with warnings.catch_warnings(), open(os.devnull, 'w') as nothing:
        warnings.simplefilter('ignore')
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, own in enumerate(kept, 1):
                os.dup2(own, stream)
                os.close(own)
            logging.disable(logging.NOTSET)


def write_card(out: Path, net: nn.Module, rows: Sequence[str], half: bool) -> None:
    """Write ``OUT.md``: what each file takes and gives, and how it was checked."""
    parameters: Any = sum(parameter.numel() for parameter in net.parameters())
    text = f'# {out.name}\n\n{type(net).__name__}, {parameters:,} parameters, {"fp16" if half else "fp32"}.\n\n'
    text += '| file | images | LR size | beside PyTorch |\n|---|---|---|---|\n' + '\n'.join(rows) + '\n'
    with atomic_write(out.with_name(f'{out.name}.md')) as part:
        part.write_text(text, encoding='utf-8')
