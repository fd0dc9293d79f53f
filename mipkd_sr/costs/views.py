"""What it saves that DUKD's LR patch and zoom-in share a call."""

import torch

from mipkd_sr.archs import build_network
from mipkd_sr.costs.measuring import median_seconds
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss

STUDENT = {'type': 'StagedEDSR', 'num_feat': 16, 'num_block': 4, 'upscale': 2}
TEACHER = {'type': 'StagedEDSR', 'num_feat': 32, 'num_block': 10, 'upscale': 2}


def time_views(together: bool, batch: int, patch: int, device: torch.device) -> tuple[float, float]:
    """Time a step of KD + DUKD of the demo's pair.

    Args:
        together: Whether LR patch and zoom-in go through a network in one call.
        batch: Patches a step.
        patch: Side of the LR patches.
        device: Where to run.

    Returns:
        Median and interquartile range of the seconds.
    """
    torch.manual_seed(0)
    lq = torch.rand(batch, 3, patch, patch).to(device)
    gt = torch.rand(batch, 3, 2 * patch, 2 * patch).to(device)
    student, teacher = build_network(STUDENT).to(device), build_network(TEACHER).to(device)
    objectives = {'kd': LogitsKDLoss(), 'dukd': DUKDLoss()}
    for objective in objectives.values():
        objective.attach(student, teacher, patch, 2)
    step = DistillStep(student, FrozenTeacher(teacher), objectives, 1, 0, batch_views=together)

    def work() -> None:
        step.zero_grad()
        torch.stack(list(step(lq, gt, 1).losses.values())).sum().backward()

    return median_seconds(work, device)
