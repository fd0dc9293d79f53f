"""Whether there is something to learn from a teacher: its quality before the training begins."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.evaluation.evaluate import evaluate, mean_metrics
from mipkd_sr.models.teachers import ONLY
from mipkd_sr.runtime.errors import RunError


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

    Nothing is done where no metric is a PSNR. Every rank must call it.

    Args:
        teacher: The teacher.
        student: The student as it starts.
        dataloader: A validation set, as ``evaluate`` takes it; its data set has the name.
        metrics: Options of the validation's metrics, by name; the first PSNR among them is taken.
        scale: Super-resolution factor.
        device: Where to run.
        file: The teacher's checkpoint, for the warning.
        name: The teacher's name, for the log.
    """
    first = {name: opt for name, opt in metrics.items() if opt['type'] == 'calculate_psnr'}
    if not first:
        return
    bicubic = build_network({'type': 'Bicubic', 'upscale': scale})
    networks = {name: teacher, 'student': student, 'bicubic': bicubic}
    metric = next(iter(first))
    with torch.compiler.set_stance('force_eager'):  # every size of image would be compiled anew
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
