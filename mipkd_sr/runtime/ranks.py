"""Makes several processes (ranks) that share a batch compute what one process computes on all of it.

DistributedDataParallel averages gradients. The average is the whole batch's gradient if a loss is a mean over samples,
and a sample's random numbers do not depend on its rank. ``BatchDraws`` gives such numbers. ``mean_over_ranks`` and
``gather_batch`` are for losses that relate samples to each other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from mipkd_sr.runtime.errors import OptionError, RunError, sentence


def rank_and_size() -> tuple[int, int]:
    """Number of this process, and how many there are; 0 and 1 outside distributed training."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class BatchDraws:
    """Random numbers for the samples of a batch; a sample's are the same on however many ranks the batch lies.

    Every rank draws for the whole batch, from the same seed, and keeps its own part: cheap, and nothing is sent.

    Args:
        seed: Seed; alike on every rank.
        device: Where the numbers are wanted.
        first: Number of the first of these samples among this rank's of the step, which may be computed in parts.
        of: How many samples of the step this rank has; these alone if None.
    """

    def __init__(self, seed: int, device: torch.device, first: int = 0, of: int | None = None) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._first, self._of = first, of
        self._rows: Tensor | None = None

    def of_samples(self, rows: Tensor | None) -> 'BatchDraws':
        """For some of the samples, by truth values, or all if None: each has the numbers that it has among all."""
        some = copy(self)
        some._rows = rows
        return some

    def uniform(self, batch: int, *shape: int) -> Tensor:
        """Numbers in [0, 1) for this rank's ``batch`` samples: batch x shape."""
        return self._own(torch.rand, batch, shape)

    def normal(self, batch: int, *shape: int) -> Tensor:
        """Normally distributed numbers for this rank's ``batch`` samples: batch x shape."""
        return self._own(torch.randn, batch, shape)

    def integers(self, batch: int, limit: int) -> Tensor:
        """Whole numbers in [0, limit) for this rank's ``batch`` samples."""
        return (self.uniform(batch) * limit).long().clamp_max(limit - 1)  # the product can round up to the limit

    def _own(self, draw: Callable[..., Tensor], batch: int, shape: tuple[int, ...]) -> Tensor:
        rank, size = rank_and_size()
        rows = self._rows
        if rows is not None:
            batch = len(rows)
        of = self._of or batch
        numbers = draw(size * of, *shape, generator=self._generator, device=self._generator.device)
        own = numbers[rank * of + self._first :][:batch]
        return own if rows is None else own[rows.to(own.device)]


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without gradient."""
    _, size = rank_and_size()
    if size == 1:
        return value.detach()
    value = value.detach() / size
    torch.distributed.all_reduce(value)
    return value


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise on every rank what one of them raises inside, so that none waits for it. Every rank must enter.

    Raises:
        OptionError: If another rank has raised one; of several the first rank's.
        RunError: If another rank has raised anything else. The message has that rank's.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    _, size = rank_and_size()
    found: list[tuple[str, ...] | None] = [None] * size
    if size > 1:
        torch.distributed.all_gather_object(found, None if failure is None else _as_texts(failure))
    if failure is not None:
        raise failure
    for rank, texts in enumerate(found):
        if texts is not None:
            raise OptionError(*texts) if len(texts) == 2 else RunError(f'process {rank} failed: {texts[0]}')


def _as_texts(error: Exception) -> tuple[str, ...]:
    return (error.key, error.message) if isinstance(error, OptionError) else (sentence(error),)


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        _, size = rank_and_size()
        parts = [torch.empty_like(own) for _ in range(size)]
        torch.distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank computes the same loss of the same whole batch, so each has the whole gradient and nothing need be
        # sent; averaged over the ranks it would count once in ``size``, so it is multiplied here.
        rank, size = rank_and_size()
        return size * grad.tensor_split(size)[rank]


def gather_batch(own: Tensor) -> Tensor:
    """The whole batch of all ranks, in their order, of equal parts ``own`` (B x ...): size * B x ...

    It has a gradient. If every rank computes the same loss of the result, the gradient averaged over ranks is correct.
    """
    _, size = rank_and_size()
    return own if size == 1 else _GatherBatch.apply(own)
