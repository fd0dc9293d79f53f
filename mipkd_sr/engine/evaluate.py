"""Running a network over a test set and measuring what comes out."""

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from torch import nn

from mipkd_sr.distill.ranks import rank_and_size
from mipkd_sr.engine.errors import RunError

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
        For each image's name, each metric's value; in distributed evaluation, where each rank has a share of the images
        (see ``mipkd_sr.data.stream.single_images``), for all of them, on every rank.

    Raises:
        RunError: If the network's output for an image is not finite.
    """
    was_training = net.training
    net.eval()
    rows = {}
    for batch in batches:
        name = Path(batch['lq_path'][0]).stem
        sr = net(batch['lq'].to(device))
        if not torch.isfinite(sr).all():
            raise RunError(
                f'the output for {batch["lq_path"][0]} is not finite: the weights have diverged; no image was written.'
            )
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
    return share_rows(rows)


def share_rows(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """All ranks' rows in the test set's order, where rank r has its images r, r + size, r + 2 * size, ..."""
    _, size = rank_and_size()
    if size == 1:
        return rows
    parts: list[dict[str, dict[str, float]]] = [{} for _ in range(size)]
    torch.distributed.all_gather_object(parts, rows)
    in_turn = zip_longest(*(part.items() for part in parts))
    return dict(item for items in in_turn for item in items if item is not None)


def mean_metrics(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of each metric."""
    names = next(iter(rows.values()), {})
    return {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
