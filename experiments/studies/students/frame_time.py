"""Milliseconds that the shipped students take for a frame of 640 x 360 pixels on this machine's CPU.

python experiments/studies/students/frame_time.py

One frame after the other, the median of 30: PyTorch in single precision and in bfloat16 (fast where the CPU has AVX512
BF16 or AMX), both in the channels-last format, and onnxruntime in single precision. The last column is the PSNR of
bfloat16's output against single precision's, on a photograph: far above a student's own error.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import skimage
import torch
from torch import Tensor, nn

from mipkd_sr.costs.measuring import device_name
from mipkd_sr.deploy.export import export
from mipkd_sr.deploy.student import shipped_student
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.evaluation.tables import markdown_table
from mipkd_sr.options.recipes import STUDENT_SCALES

WIDTH, HEIGHT = 640, 360


def milliseconds(run: Callable[[], Any], repeats: int = 30) -> float:
    """The median time of a call, after two to warm up."""
    times = []
    for number in range(repeats + 2):
        start = time.perf_counter()
        run()
        if number >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def onnx_session(net: nn.Module) -> onnxruntime.InferenceSession:
    """The network, exported, in onnxruntime, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'student.onnx')
        export(net, file)
        return onnxruntime.InferenceSession(file.read_bytes(), options, providers=['CPUExecutionProvider'])


def psnr(image: Tensor, expected: Tensor) -> float:
    """PSNR in dB of values in [0, 1]."""
    return float(-10 * torch.log10((image.float() - expected).square().mean()))


@torch.inference_mode()
def main() -> None:
    """Measure, and print a table."""
    photo = np.tile(skimage.data.astronaut(), (1, 2, 1))[:HEIGHT, :WIDTH] / 255
    frame = torch.from_numpy(photo).permute(2, 0, 1)[None].float().contiguous(memory_format=torch.channels_last)
    lq = frame.contiguous().numpy()
    rows = []
    for scale in STUDENT_SCALES:
        with torch.inference_mode(False), torch.no_grad():
            session = onnx_session(shipped_student(scale))
        net = shipped_student(scale).to(memory_format=torch.channels_last)
        half = shipped_student(scale).to(memory_format=torch.channels_last).bfloat16()
        half_frame = frame.bfloat16()
        times = (
            milliseconds(lambda net=net: net(frame)),
            milliseconds(lambda half=half, half_frame=half_frame: half(half_frame)),
            milliseconds(lambda session=session: session.run(None, {'lq': lq})),
        )
        agreement = psnr(half(half_frame).clamp(0, 1), net(frame).clamp(0, 1))
        rows.append([f'x{scale}', f'{count_parameters(net):,}', *(f'{t:.0f}' for t in times), f'{agreement:.1f}'])
    header = ['student', 'parameters', 'torch, ms', 'torch in bf16, ms', 'onnxruntime, ms', 'bf16 against fp32, dB']
    print(markdown_table(header, rows))
    print(f'\nFrames of {WIDTH} x {HEIGHT}, {torch.get_num_threads()} threads on {device_name(torch.device("cpu"))}.')


if __name__ == '__main__':
    main()
