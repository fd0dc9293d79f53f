"""What Real-ESRGAN's degradation costs a CPU, beside the step of `real/srvgg_x4`: CPU seconds for an image.

OMP_NUM_THREADS=1 python experiments/studies/speed/degradation_cost.py
"""

import time
from collections.abc import Callable

import mipkd_sr.register  # isort: skip  # noqa: F401
import numpy as np
import torch
from basicsr.utils import USMSharp

from mipkd_sr.archs import build_network
from mipkd_sr.data.degradations import build_degradation, degrade
from mipkd_sr.options.reading import read_options
from mipkd_sr.options.recipes import RECIPES

IMAGES, SIDE = 8, 400
OPT = read_options(RECIPES / 'train' / 'real' / 'srvgg_x4.yml').data


def seconds(work: Callable[[], object], images: int, times: int) -> float:
    """The least CPU time of some, for an image."""
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found) / images


def main() -> None:
    """Print the figures."""
    torch.manual_seed(0)
    y, x = np.mgrid[:SIDE, :SIDE] / 20
    gt = torch.from_numpy((np.sin(x * y) + 1) / 2).float().expand(IMAGES, 3, SIDE, SIDE)
    gt = ((gt + 0.02 * torch.randn(gt.shape)).clamp(0, 1) * 255).round() / 255
    kernels = torch.rand(3, IMAGES, 21, 21)
    kernels /= kernels.sum((2, 3), keepdim=True)
    batch = {'gt': gt, 'seed': torch.arange(IMAGES)}
    batch |= dict(zip(('kernel1', 'kernel2', 'sinc_kernel'), kernels, strict=True))
    side, scale, cpu = OPT['datasets']['train']['gt_size'], OPT['scale'], torch.device('cpu')
    for name, usm in (('degradation', None), ("degradation with BasicSR's USMSharp", USMSharp())):
        degradation = build_degradation(OPT['degradation'])
        degradation.usm = usm or degradation.usm
        cost = seconds(lambda made=degradation: degrade(batch, made, scale, side, cpu), IMAGES, 3)
        print(f'{name}: {cost:.3f} s an image', flush=True)
    teacher, student = build_network(OPT['network_t']).eval(), build_network(OPT['network_g'])
    lq = torch.rand(1, 3, side // scale, side // scale)

    def step() -> None:
        with torch.no_grad():
            target = teacher(lq)
        (student(lq) - target).abs().mean().backward()

    print(f"teacher's forward, student's forward and backward: {seconds(step, 1, 2):.2f} s an image")


if __name__ == '__main__':
    main()
