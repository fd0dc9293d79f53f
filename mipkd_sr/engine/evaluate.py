"""Running a network over a test set and measuring what comes out."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from torch import nn

ImageCallback = Callable[[str, np.ndarray], None]


@torch.no_grad()
def evaluate(
    net: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    on_image: ImageCallback | None = None,
    teacher: nn.Module | None = None,
) -> dict[str, dict[str, float]]:
    """Measure ``net`` on every image of a test set, as the papers do: the output is clipped and rounded to 8 bits.

    Args:
        net: The network; it is run in evaluation mode and left in the mode it was in.
        batches: One image each: ``lq`` (1 x 3 x H x W, [0, 1]), ``lq_path``, and, for metrics, ``gt``.
        metrics: Options of registered metrics, by the name of the result.
        device: Where to run.
        on_image: Called with each image's name and SR image (H x W x 3, BGR, 8 bits).
        teacher: If given, each PSNR is also measured against this network's output, as ``<name>_to_teacher``.

    Returns:
        For each image's name, each metric's value.

    Raises:
        ValueError: If the network's output for an image is not finite.
    """
    was_training = net.training
    net.eval()
    rows = {}
    for batch in batches:
        name = Path(batch['lq_path'][0]).stem
        sr = net(batch['lq'].to(device))
        if not torch.isfinite(sr).all():
            raise ValueError(f'the output for {batch["lq_path"][0]} is not finite; the weights have diverged')
        image = tensor2img(sr)
        if on_image:
            on_image(name, image)
        if 'gt' in batch:
            data = {'img': image, 'img2': tensor2img(batch['gt'])}
            rows[name] = {metric: float(calculate_metric(data, opt)) for metric, opt in metrics.items()}
            if teacher is not None:
                data['img2'] = tensor2img(teacher(batch['lq'].to(device)))
                for metric, opt in metrics.items():
                    if opt['type'].startswith('calculate_psnr'):
                        rows[name][f'{metric}_to_teacher'] = float(calculate_metric(data, opt))
    net.train(was_training)
    return rows


def mean_metrics(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of each metric."""
    names = next(iter(rows.values()), {})
    return {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
