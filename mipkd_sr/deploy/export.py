"""Writing a network in the forms that others read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mipkd_sr.deploy.layouts import weights_in_layout
from mipkd_sr.runtime.checkpoint import save_atomically, write_digest
from mipkd_sr.runtime.errors import OptionError, RunError, sentence
from mipkd_sr.runtime.files import atomic_write

FORMATS = ('.onnx', '.safetensors', '.pth')
ONNX_TOLERANCE = 1e-4
"""Greatest difference between onnxruntime's output and torch's, for values in [0, 1]."""


def export(net: nn.Module, file: Path, layout: str = 'basicsr') -> str:
    """Write a network to a file, in the format that its ending names.

    * ``.onnx``: input ``lq`` (N x 3 x H x W, values in [0, 1]), output ``sr``; compared with onnxruntime's output at
      two sizes before it is written. N, H and W are free, except for networks with windows (SwinIR): there N = 1, as
      the exporter keeps the number of windows of an image, and H and W are multiples of the window's side, at least
      two, as it keeps the padding, which is none. Pad the image before (BasicSR mirrors it) and cut off what was added.
    * ``.safetensors``: the weights alone, in the layout.
    * ``.pth``: BasicSR's form, ``{'params': weights}``, or the weights alone in another layout.

    The first two have no checksums: ``sha256sum``'s is written beside them, as ``FILE.sha256``.

    Args:
        net: The network, on the CPU, in evaluation mode.
        file: The file to write; it must not be there.
        layout: See ``mipkd_sr.deploy.layouts``; not for ONNX.

    Returns:
        What was written, in words.

    Raises:
        OptionError: If the format is not known, the file is there already, or the layout cannot tell of this network.
        RunError: If ONNX computes something else.
    """
    if file.suffix not in FORMATS:
        raise OptionError(
            '--out', f'{file} ends in none of {", ".join(FORMATS)}; name the file by the format that you want.'
        )
    if file.exists():
        raise OptionError('--out', f'{file} is there already; give another name, or remove it.')
    if file.suffix == '.onnx' and layout != 'basicsr':
        raise OptionError('--layout', f'is for weights; {file} is ONNX, which has none by name.')
    weights = weights_in_layout(net, layout)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.onnx':
        return _export_onnx(net, file)
    if file.suffix == '.pth':
        save_atomically({'params': weights} if layout == 'basicsr' else weights, file)
    else:
        from safetensors.torch import save  # an optional dependency: pip install mipkd_sr[export]

        with atomic_write(file) as part:  # its own save_file makes a file that its owner alone may read
            part.write_bytes(save(weights))
        write_digest(file)
    return f'{file}: {len(weights)} tensors'


@torch.no_grad()
def _export_onnx(net: nn.Module, file: Path) -> str:
    import onnxruntime  # an optional dependency, as is what torch needs to write the file: mipkd_sr[export]

    window: int | None = getattr(net, 'window_size', None)
    dimension = torch.export.Dim
    free: dict[int, Any]
    if window:  # the example is neither square nor what a network was made for
        step, height, width = window, 2 * window, 3 * window
        free = {2: window * dimension('h', min=2), 3: window * dimension('w', min=2)}
    else:
        step, height, width = 1, 32, 36
        free = {0: dimension('n'), 2: dimension('h', min=8), 3: dimension('w', min=8)}
    with atomic_write(file) as part:
        try:
            torch.onnx.export(
                net,
                (torch.rand(1, 3, height, width),),
                str(part),
                input_names=['lq'],
                output_names=['sr'],
                dynamic_shapes=(free,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (OSError, ImportError):
            raise
        except Exception as error:  # torch has many for networks that ONNX cannot hold, and for sizes that do not fit
            reason = sentence(error)[:300]
            raise RunError(f'{type(net).__name__} cannot be exported to ONNX: {reason}') from error
        session = onnxruntime.InferenceSession(str(part), providers=['CPUExecutionProvider'])
        for lq in (torch.rand(1, 3, height, width), torch.rand(1, 3, height + 3 * step, width + 2 * step)):
            difference = float(np.abs(session.run(None, {'lq': lq.numpy()})[0] - net(lq).numpy()).max())
            if not difference <= ONNX_TOLERANCE:
                raise RunError(
                    f'onnxruntime differs from torch by {difference:.1e} at {tuple(lq.shape)}; nothing written.'
                )
    write_digest(file)
    sides = f'one image, its sides multiples of {window}' if window else 'any number of images of any size'
    return f'{file}: for {sides}; as torch to {ONNX_TOLERANCE:.0e} at two sizes'
