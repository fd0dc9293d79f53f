"""Milliseconds that the shipped students take for a frame of 640 x 360 pixels on this machine's CPU.

python experiments/studies/students/frame_time.py

The three in turn, the least of 30 times, which other work on the machine disturbs least: PyTorch in single precision
and, as `mipkd upscale` has it, with the body in bf16 (fast where the CPU has AVX512 BF16 or AMX), both in the
channels-last format, and onnxruntime in single precision. OMP_NUM_THREADS says how many threads each has. Megapixels
are of the SR image.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import skimage
import torch
from torch import nn

from mipkd_sr.api import load_student
from mipkd_sr.costs.measuring import device_name
from mipkd_sr.deploy.exporting import export
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.evaluation.inference import prepare_network
from mipkd_sr.evaluation.results import markdown_table
from mipkd_sr.options.recipes import STUDENT_SCALES

WIDTH, HEIGHT = 640, 360
ROUNDS = 30


def onnx_session(net: nn.Module) -> onnxruntime.InferenceSession:
    """The network, exported, in onnxruntime, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'student.onnx')
        list(export(net, file))
        return onnxruntime.InferenceSession(file.read_bytes(), options, providers=['CPUExecutionProvider'])


def main() -> None:
    """Measure, and print a table."""
    photo = np.tile(skimage.data.astronaut(), (1, 2, 1))[:HEIGHT, :WIDTH] / 255
    frame = torch.from_numpy(photo).permute(2, 0, 1)[None].float().contiguous()
    cpu = torch.device('cpu')
    rows = []
    for scale in STUDENT_SCALES:
        net = load_student(scale).to(memory_format=torch.channels_last)
        channels_last = frame.contiguous(memory_format=torch.channels_last)
        runs = [partial(prepare_network(net, bf16=bf16), channels_last) for bf16 in (False, True)]
        runs.append(partial(onnx_session(net).run, None, {'lq': frame.numpy()}))
        with torch.no_grad():
            rounds = [[seconds_of(run, cpu) for run in runs] for _ in range(ROUNDS)]
        least = [min(times) for times in zip(*rounds, strict=True)]
        speeds = [WIDTH * HEIGHT * scale**2 / 1e6 / seconds for seconds in least]
        rows.append(
            [f'x{scale}', *(f'{1000 * seconds:.0f}' for seconds in least), *(f'{speed:.1f}' for speed in speeds)]
        )
    names = ['torch', 'torch, body in bf16', 'onnxruntime']
    print(
        markdown_table(
            ['student', *(f'{name}, {unit}' for unit in ('ms', 'megapixels a second') for name in names)], rows
        )
    )
    print(f'\nFrames of {WIDTH} x {HEIGHT} on {device_name(cpu)}, {torch.get_num_threads()} threads.')


if __name__ == '__main__':
    main()
