"""Milliseconds that the shipped students take for a frame of 640 x 360 pixels on this machine's CPU, beside others.

python experiments/studies/students/frame_time.py

In turn, the least of ten times, which other work on the machine disturbs least: PyTorch in single
precision and with the body in bf16 (which helps where the CPU has AVX512 BF16 or AMX), both in the
channels-last format, and onnxruntime in single precision. OMP_NUM_THREADS says how many threads each has. FSRCNN,
ECBSR-M4C16 and SESR-M5 are networks of the published shapes with weights of no use, for RGB images.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import skimage
import torch
from torch import Tensor, nn

from mipkd_sr.api import load_student
from mipkd_sr.commands.benchmark.device import shapes
from mipkd_sr.costs.measuring import device_name
from mipkd_sr.deploy.exporting import export
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.evaluation.inference import prepare_network
from mipkd_sr.evaluation.results import markdown_table
from mipkd_sr.options.recipes import STUDENT_SCALES, STUDENT_SIZES

WIDTH, HEIGHT = 640, 360
ROUNDS = 10


def onnx_session(net: nn.Module) -> onnxruntime.InferenceSession:
    """The network, exported, in onnxruntime, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'student.onnx')
        list(export(net, file))
        return onnxruntime.InferenceSession(file.read_bytes(), options, providers=['CPUExecutionProvider'])


def runs_of(net: nn.Module, frame: Tensor) -> list[Callable[[], object]]:
    """What is timed of a network: PyTorch, PyTorch in bf16, onnxruntime."""
    session, images = onnx_session(net), frame.contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)
    in_torch = [partial(prepare_network(net, bf16=bf16), images) for bf16 in (False, True)]
    return [*in_torch, partial(session.run, None, {'lq': frame.numpy()})]


def main() -> None:
    """Measure, and print a table."""
    photo = np.tile(skimage.data.astronaut(), (1, 2, 1))[:HEIGHT, :WIDTH] / 255
    frame = torch.from_numpy(photo).permute(2, 0, 1)[None].float().contiguous()
    cpu = torch.device('cpu')
    rows = []
    for scale in STUDENT_SCALES:
        nets = {size: load_student(scale, size=size) for size in STUDENT_SIZES}
        nets |= {name: net.eval() for name, net in shapes(scale).items() if name != 'bicubic'}
        runs = [run for net in nets.values() for run in runs_of(net, frame)]
        with torch.no_grad():
            rounds = [[seconds_of(run, cpu) for run in runs] for _ in range(ROUNDS)]
        least = [f'{1000 * min(times):.0f}' for times in zip(*rounds, strict=True)]
        rows += [[f'x{scale}', name, *least[3 * i : 3 * i + 3]] for i, name in enumerate(nets)]
    print(markdown_table(['scale', 'network', 'torch, ms', 'torch, bf16, ms', 'onnxruntime, ms'], rows))
    print(f'\nFrames of {WIDTH} x {HEIGHT} on {device_name(cpu)}, {torch.get_num_threads()} threads.')


if __name__ == '__main__':
    main()
