"""Running networks over a test set and measuring what comes out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed
from basicsr.utils import tensor2img
from torch import Tensor, nn

from mipkd_sr.data.scan import image_info
from mipkd_sr.evaluation.inference import Network
from mipkd_sr.metrics import measure, needs_hr
from mipkd_sr.runtime.errors import RunError, is_out_of_memory, traced
from mipkd_sr.runtime.ranks import failing_together, rank_and_size

ImageCallback = Callable[[str, str, np.ndarray], None]
Rows = dict[str, dict[str, float]]
"""For each image's name, each metric's value."""

GREY = ('colour', 'as_is')
"""How a grey HR image is measured."""
PIXELS_AT_A_TIME = 2**18
"""LR pixels in a batch of images of the same size, on a GPU; one image may have more."""
IMAGES_WAITING = 8
"""Images whose metrics may still be computed while networks run on the next."""


@torch.no_grad()
def evaluate(
    networks: Mapping[str, Network],
    batches: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    on_image: ImageCallback | None = None,
    reference: str | Sequence[str] | None = None,
    grey: str = 'colour',
) -> dict[str, Rows]:
    """Measure networks on every image of a test set, as the papers do: the output is clipped and rounded to 8 bits.

    Metrics are computed beside the networks' runs; on a GPU images of the same size share a run.

    Args:
        networks: The networks by name. Those that are modules are run in evaluation mode and left in the mode they were
            in.
        batches: One image each: ``lq`` (1 x 3 x H x W, [0, 1]), ``lq_path``, and, for metrics, ``gt`` and ``gt_path``.
        metrics: Options of registered metrics, by the name of the result.
        device: Where to run.
        on_image: Called with the network's and the image's name and the SR image (H x W x 3, BGR, 8 bits).
        reference: One of ``networks``, or several. The first PSNR among the metrics is also measured between its output
            and each other network's, as ``psnr_to_<reference>``. That, and a metric such as NIQE, needs no ``gt``.
        grey: How PSNR and SSIM are measured where the HR file is grey: 'colour', as three equal channels (whose Y has a
            smaller range, 16 to 235), or 'as_is', one channel against the SR image's grey value.

    Returns:
        For each network its rows. In distributed evaluation each rank has a share of the images (see
        ``mipkd_sr.data.stream.single_images``); every rank gets the rows of all images.

    Raises:
        RunError: If a network's output for an image is not finite, or an image cannot be measured; on every rank.
    """
    rows: dict[str, Rows] = {name: {} for name in networks}
    references = [reference] if isinstance(reference, str) else list(reference or ())
    order: list[str] = []
    with failing_together(), ExitStack() as stack:
        for net in networks.values():
            if isinstance(net, nn.Module):
                stack.enter_context(evaluation_mode(net))
        measuring = _Measuring(rows, stack.enter_context(ThreadPoolExecutor(2)), metrics, references, grey)
        limit = PIXELS_AT_A_TIME if device.type == 'cuda' else 1
        for batch in same_size_batches(batches, limit, order):
            _run(networks, batch, device, on_image, measuring)
        measuring.finish()
    return {name: share_rows({image: own[image] for image in order if image in own}) for name, own in rows.items()}


def _run(
    networks: Mapping[str, Network],
    batch: Mapping[str, Any],
    device: torch.device,
    on_image: ImageCallback | None,
    measuring: '_Measuring',
) -> None:
    """Run the networks on a batch of ``same_size_batches``, and have what comes out measured."""
    try:
        outputs = {name: net(batch['lq'].to(device)) for name, net in networks.items()}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size, files = ' x '.join(map(str, batch['lq'].shape[-2:])), ', '.join(batch['lq_path'])
        raise RunError(f'{files} ({size}) needs more memory than there is; set val:tile, to 256 or less.') from error
    for number, image in enumerate(batch['names']):
        images = {name: _to_image(sr[number], name, batch['lq_path'][number]) for name, sr in outputs.items()}
        if on_image:
            for name, sr in images.items():
                on_image(name, image, sr)
        measuring.add(image, images, batch, number)


@dataclass
class _Measuring:
    """Measures images beside the networks' runs, a few at a time."""

    _rows: dict[str, Rows]
    _pool: ThreadPoolExecutor
    _metrics: Mapping[str, Mapping[str, Any]]
    _references: Sequence[str]
    _grey: str
    _waiting: deque[tuple[str, str, Future[dict[str, dict[str, float]]]]] = field(default_factory=deque)

    def add(self, image: str, images: Mapping[str, np.ndarray], batch: Mapping[str, Any], number: int) -> None:
        """Without ``gt``: the metrics that need none, and the agreement with the references."""
        file = batch['gt_path' if 'gt' in batch else 'lq_path'][number]
        hr = tensor2img(batch['gt'][number]) if 'gt' in batch else None
        as_grey = hr is not None and self._grey == 'as_is' and image_info(Path(file)).form == 'grey'
        measured = self._pool.submit(_measure_all, images, hr, self._metrics, self._references, as_grey)
        self._waiting.append((image, file, measured))
        if len(self._waiting) > IMAGES_WAITING:
            self._take_oldest()

    def finish(self) -> None:
        while self._waiting:
            self._take_oldest()

    def _take_oldest(self) -> None:
        image, file, measured = self._waiting.popleft()
        try:
            rows = measured.result()
        except Exception as error:  # whatever a metric raises
            metric = getattr(error, 'metric', '')
            raise RunError(f'{file} cannot be measured{f" by {metric}" if metric else ""}: {traced(error)}.') from error
        for name, row in rows.items():
            self._rows[name][image] = row


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """A context in which a network is in evaluation mode; afterwards its mode is as before."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def _to_image(sr: Tensor, name: str, file: str) -> np.ndarray:
    """H x W x 3, BGR, 8 bits."""
    if not torch.isfinite(sr).all():
        raise RunError(
            f'the output of {name} for {file} is not finite: the weights have diverged; no image was written.'
        )
    return tensor2img(sr)


def same_size_batches(batches: Iterable[Mapping[str, Any]], limit: int, order: list[str]) -> Iterator[dict[str, Any]]:
    """Put images of the same size together, up to ``limit`` LR pixels, from batches of one image each.

    Their names are added to ``order``, in their order. What is given has ``lq`` and ``gt``, and lists of ``lq_path``,
    ``gt_path`` and ``names``.
    """
    groups: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for batch in batches:
        order.append(Path(batch.get('gt_path', batch['lq_path'])[0]).stem)
        shape = tuple(batch['lq'].shape[-2:])
        group = groups.setdefault(shape, [])
        group.append({**batch, 'names': [order[-1]]})
        if (len(group) + 1) * shape[0] * shape[1] > limit:
            yield _joined(groups.pop(shape))
    for group in groups.values():
        yield _joined(group)


def _joined(group: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: torch.cat([one[key] for one in group]) if isinstance(value, Tensor) else [one[key][0] for one in group]
        for key, value in group[0].items()
    }


def _measure_all(
    images: Mapping[str, np.ndarray],
    hr: np.ndarray | None,
    metrics: Mapping[str, Mapping[str, Any]],
    references: Sequence[str],
    as_grey: bool,
) -> dict[str, dict[str, float]]:
    """Every network's metrics on one image."""
    if as_grey and hr is not None:
        images = {name: cv2.cvtColor(sr, cv2.COLOR_BGR2GRAY) for name, sr in images.items()}
        hr = hr[..., 0]
    rows: dict[str, dict[str, float]] = {name: {} for name in images}
    for metric, opt in metrics.items():
        if hr is None and needs_hr(opt):
            continue
        try:
            for name, sr in images.items():
                rows[name][metric] = measure(opt, sr, hr)
        except Exception as error:
            error.metric = metric  # type: ignore[attr-defined]
            raise
    first = next((name for name, opt in metrics.items() if opt['type'] == 'calculate_psnr'), None)
    for reference in references:
        if first is None:
            break
        for name in images.keys() - {reference}:
            rows[name][f'{first}_to_{reference}'] = measure(metrics[first], images[name], images[reference])
    return rows


def share_rows(rows: Rows) -> Rows:
    """All ranks' rows in the test set's order, where rank r has its images r, r + size, r + 2 * size, ..."""
    _, size = rank_and_size()
    if size == 1:
        return rows
    parts: list[Rows] = [{} for _ in range(size)]
    torch.distributed.all_gather_object(parts, rows)
    in_turn = zip_longest(*(part.items() for part in parts))
    return dict(item for items in in_turn for item in items if item is not None)


def mean_metrics(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of each metric."""
    names = next(iter(rows.values()), {})
    return {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
