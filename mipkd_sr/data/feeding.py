"""From a batch as it is read to what a training step takes: LR images, and HR images where there are any."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mipkd_sr.data.degradations import Degradation, degrade


class Fed(NamedTuple):
    """A step's batch."""

    lq: Tensor  # LR images, B x 3 x H x W, values in [0, 1]
    gt: Tensor  # HR images, B x 3 x sH x sW, values in [0, 1]; NaN for a sample without one
    has_gt: list[bool] | None  # whether each sample has one; None if all have
    names: list[str]  # files, as far as they are known


def feed(data: Mapping[str, Any], degradation: Degradation, scale: int, gt_size: int | None, device: Any) -> Fed:
    """Bring a batch to the device, and make the LR images that it has not.

    ``data`` has ``lq`` and ``gt``, or one of them, as ``mipkd_sr.data.mixing.collate`` gives them; ``gt_size`` is the
    side of the HR patches that are cut out, in pixels, None for whole images.
    """
    if 'groups' in data:
        parts = [feed(batch, degradation, scale, gt_size, device) for _, batch in data['groups']]
        order = torch.tensor([number for rows, _ in data['groups'] for number in rows]).argsort()
        lq, gt = (torch.cat(images)[order.to(device)] for images in ([p.lq for p in parts], [p.gt for p in parts]))
        marks = [mark for part in parts for mark in part.has_gt or [True] * len(part.lq)]
        names = [name for part in parts for name in part.names or [''] * len(part.lq)]
        has_gt, named = ([values[number] for number in order.tolist()] for values in (marks, names))
        return Fed(lq, gt, None if all(has_gt) else has_gt, named)
    names = list(data.get('lq_path', data.get('gt_path', ())))
    if 'lq' not in data:
        return Fed(*degrade(data, degradation, scale, gt_size, device), None, names)
    lq = data['lq'].to(device, non_blocking=True)
    if 'gt' in data:
        return Fed(lq, data['gt'].to(device, non_blocking=True), None, names)
    size = lq.shape[-2] * scale, lq.shape[-1] * scale
    return Fed(lq, lq.new_full((1, 1, 1, 1), torch.nan).expand(*lq.shape[:2], *size), [False] * len(lq), names)


def parts_of(lq: Tensor, gt: Tensor, has_gt: list[bool] | None, count: int) -> list[tuple[Tensor, Tensor, Any]]:
    """A batch in ``count`` parts, or as many as it has samples: of each ``lq``, ``gt`` and ``has_gt``."""
    lqs, gts = lq.chunk(count), gt.chunk(count)
    marks = [None] * len(lqs) if has_gt is None else [m.tolist() for m in torch.tensor(has_gt).chunk(count)]
    return list(zip(lqs, gts, marks, strict=True))
