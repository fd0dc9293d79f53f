"""Whether a student can learn from a teacher: the teacher's quality before the training begins."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.evaluation.evaluate import evaluate, evaluation_mode, mean_metrics
from mipkd_sr.imresize import imresize
from mipkd_sr.models.teachers import ONLY
from mipkd_sr.runtime.errors import RunError

LOOKED_AT = 8
"""Images that are looked at closely."""
UNLIKE = 20.0
"""PSNR of bicubic interpolation, in dB. Below it HR and LR images may be of different photographs."""
FAR = {2: 50, 3: 47, 4: 44}
"""By scale: PSNR, in dB, between LR images and a teacher's downsampled output. Below it the teacher's options may be
wrong.

Medians over 13 DIV2K crops at x2, x3 and x4: BSRN's are 62, 58 and 55, our small students' 57, 55 and 51. With a
residual scale of 0.1 in place of 1 the students' are 42, 41 and 36. The demo's teacher at x2 has 54 to 62 (46 to 51).
"""


def check_teacher(
    teacher: nn.Module,
    student: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    scale: int,
    device: torch.device,
    file: str,
    name: str = ONLY,
) -> None:
    """Log a teacher's PSNR beside bicubic interpolation's and the student's, with a warning if it is the lowest.

    It is the first PSNR of the validation's ``metrics``, on a validation set as ``evaluate`` takes it; without one
    nothing is done. The student is as it starts. ``file`` is the teacher's checkpoint. Every rank must call it.
    """
    first = {name: opt for name, opt in metrics.items() if opt['type'] == 'calculate_psnr'}
    if not first:
        return
    bicubic = build_network({'type': 'Bicubic', 'upscale': scale})
    networks = {name: teacher, 'student': student, 'bicubic': bicubic}
    metric = next(iter(first))
    try:
        found = evaluate(networks, dataloader, {metric: first[metric]}, device)
    except RunError as error:
        raise RunError(f'{str(error).rstrip(".")}; the weights of {name} are those of {file}.') from None
    means = {network: mean_metrics(rows)[metric] for network, rows in found.items()}
    text = ', '.join(f'{network} {value:.2f}' for network, value in means.items())
    dataset_name = dataloader.dataset.opt['name']  # type: ignore[attr-defined]
    get_root_logger().info(f'Before training, {metric} on {dataset_name}: {text} dB')
    who = 'The teacher' if name == ONLY else f'Teacher {name}'
    if means[name] <= max(means['student'], means['bicubic']):
        get_root_logger().warning(
            f'{who} is no better than bicubic interpolation or the student: is {file} its trained checkpoint, '
            'and are its options (img_range, res_scale) those it was trained with?'
        )
    if means['bicubic'] < UNLIKE:
        get_root_logger().warning(f'{dataset_name}: are HR and LR images of one name of one photograph?')
    for doubt in _doubts(teacher, dataloader, scale, device):
        get_root_logger().warning(f'{who} {doubt}')


@torch.no_grad()
def _doubts(teacher: nn.Module, dataloader: Iterable[Mapping[str, Any]], scale: int, device: torch.device) -> list[str]:
    """Signs, on a few images, that a teacher gets other inputs than it was trained with."""
    gains, closeness = [], []
    with evaluation_mode(teacher):
        for batch in islice(dataloader, LOOKED_AT):
            if 'gt' not in batch or batch['lq'].shape[1] != 3:
                return []
            lq, gt = batch['lq'].to(device), batch['gt'].to(device)
            sr, of_bgr = (teacher(images).clamp(0, 1) for images in (lq, lq.flip(1)))
            errors = [(output - gt).square().mean() for output in (sr, of_bgr.flip(1))]
            gains.append(10 * torch.log10(errors[0] / errors[1]))
            closeness.append(-10 * torch.log10((imresize(sr, 1 / scale) - lq).square().mean()))
    doubts = []
    if gains and (gain := torch.stack(gains).mean()) > 0.05:
        doubts.append(f'is {gain:.2f} dB better with red and blue exchanged: was it trained on BGR images?')
    if closeness and (close := torch.stack(closeness).median()) < (least := FAR.get(scale, FAR[4])):
        doubts.append(
            f'gives images that are within {close:.0f} dB of the LR images when they are downsampled; those of trained '
            f'networks are within {least} dB and more of bicubic ones: are its options (res_scale, img_range) right?'
        )
    return doubts
