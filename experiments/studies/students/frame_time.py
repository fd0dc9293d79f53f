"""Milliseconds that the shipped students take for a frame of 640 x 360 pixels on this machine's CPU.

python experiments/studies/students/frame_time.py

One frame after the other, the median of 15: PyTorch in single precision and, by autocast, in bfloat16 (fast where the
CPU has AVX512 BF16 or AMX), both in the channels-last format, and onnxruntime in single precision. The last column is
the PSNR of bfloat16's output against single precision's, on a photograph: far above a student's own error.
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
from mipkd_sr.costs.measuring import device_name, median_seconds
from mipkd_sr.deploy.export import export
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.evaluation.tables import markdown_table
from mipkd_sr.options.recipes import STUDENT_SCALES

WIDTH, HEIGHT = 640, 360


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
        single, half = FrozenTeacher(net, torch.float32), FrozenTeacher(net, torch.bfloat16)
        in_torch = [median_seconds(partial(run, channels_last), cpu)[0] for run in (single, half)]
        error = (half(channels_last).sr.double() - single(channels_last).sr.double()).square().mean()
        session = onnx_session(net)
        in_onnx, _ = median_seconds(partial(session.run, None, {'lq': frame.numpy()}), cpu)
        times = [f'{1000 * seconds:.0f}' for seconds in (*in_torch, in_onnx)]
        rows.append([f'x{scale}', f'{count_parameters(net):,}', *times, f'{-10 * error.log10():.1f}'])
    header = ['student', 'parameters', 'torch, ms', 'torch in bf16, ms', 'onnxruntime, ms', 'bf16 against fp32, dB']
    print(markdown_table(header, rows))
    print(f'\nFrames of {WIDTH} x {HEIGHT} on {device_name(cpu)}.')


if __name__ == '__main__':
    main()
