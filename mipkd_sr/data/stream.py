"""The training data as one endless stream. Every sample is a function of seed, epoch and index.

BasicSR restarts its loader each epoch and drops the epoch's last, incomplete batch, so that fewer iterations run than
were asked for. Here a batch may span two epochs, and there are exactly as many batches as asked for. A run that is
resumed at iteration i reads what an undisturbed run reads from i on.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from mipkd_sr.data.mixing import collate, place
from mipkd_sr.data.readers import ReaderLost, read_ahead
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime.errors import RunError, traced
from mipkd_sr.runtime.ranks import failing_together, rank_and_size
from mipkd_sr.runtime.seeding import mix_seed, preserved_random_state, seed_cpu

DEGRADING = 1
"""Tells the random numbers of a sample's degradation from those of its crop."""


class NamedErrors(Dataset):
    """A data set of BasicSR's form, whose errors say which files they are about."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, 'opt', {})
        self.paths = getattr(dataset, 'paths', ())

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        """The sample."""
        try:
            return self.dataset[index]
        except Exception as error:  # whatever a decoder, a file system or a user's class raises
            entry = getattr(self.dataset, 'paths', {index: f'sample {index}'})[index]
            files = entry.values() if isinstance(entry, dict) else [entry]
            raise RunError(f'{" or ".join(map(str, files))} cannot be read: {traced(error)}.') from error


class SeededDataset(Dataset):
    """A data set whose random crops and flips depend on (seed, epoch, index) alone, not on who reads the sample.

    It draws from Python's, NumPy's or torch's default generator, as BasicSR's training sets do.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = NamedErrors(dataset)
        self.seed = seed

    def __getitem__(self, sample: tuple[int, int]) -> Any:
        """The sample of an (epoch, index) pair. The default generators are left as they were.

        One without an LR image has ``seed`` besides: of the random numbers by which the model makes it.
        """
        with preserved_random_state():
            seed_cpu(self.seed, *sample)
            found = self.dataset[sample[1]]
        if isinstance(found, dict) and 'lq' not in found:
            found = {**found, 'seed': mix_seed(self.seed, *sample, DEGRADING)}
        return found


@dataclass(eq=False)
class StreamSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) pairs for one rank: its own slice of each iteration's global batch.

    Every epoch is a new permutation of the whole data set; a batch may span two epochs. Two ranks with batch b read
    together what one rank with batch 2b reads.

    Args:
        length: Images in the data set.
        batch_size: Samples an iteration and rank.
        first_iter: Number of the first iteration, from 1.
        total_iter: Number of the last iteration.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        samples_before: Samples that all processes together have read so far; computed from the others if None.
        mixed: Length and share of each set, where ``length`` is of several; see ``mipkd_sr.data.mixing``.
    """

    length: int
    batch_size: int
    first_iter: int
    total_iter: int
    seed: int
    rank: int = 0
    world_size: int = 1
    samples_before: int | None = None
    mixed: Sequence[tuple[int, Fraction]] | None = None

    def after(self, taken: int) -> 'StreamSampler':
        """The same batches without the first ``taken``."""
        before = self._before() + taken * self.world_size * self.batch_size
        return replace(self, first_iter=self.first_iter + taken, samples_before=before)

    def _before(self) -> int:
        if self.samples_before is None:
            return (self.first_iter - 1) * self.world_size * self.batch_size
        return self.samples_before

    def __len__(self) -> int:
        return max(0, self.total_iter - self.first_iter + 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sets = list(self.mixed or [(self.length, Fraction(1))])
        shares, orders = [share for _, share in sets], dict[int, tuple[int, list[int]]]()
        starts = [sum(length for length, _ in sets[:number]) for number in range(len(sets))]
        for number in range(len(self)):
            first = self._before() + (number * self.world_size + self.rank) * self.batch_size
            batch = []
            for sample in range(first, first + self.batch_size):
                of, count = place(sample, shares)
                epoch, index = divmod(count, sets[of][0])
                if orders.get(of, (-1, []))[0] != epoch:
                    seed = mix_seed(self.seed, epoch, *([of] if of else []))
                    orders[of] = epoch, np.random.default_rng(seed).permutation(sets[of][0]).tolist()
                batch.append((epoch, starts[of] + orders[of][1][index]))
            yield batch


def samples_an_iteration(opt: TrainingOptions) -> int:
    """Samples that all processes together read for one optimizer step of a run with the options ``opt``."""
    return opt['datasets']['train']['batch_size_per_gpu'] * opt['train']['accumulation_steps'] * opt['world_size']


@dataclass(eq=False)
class TrainingBatches:
    """The batches of a training run from iteration ``first_iter``, from 1, to its last, as ``feeding.feed`` takes them.

    When a reading process is lost, this one reads the remaining batches itself, so that the run can end in order. For
    ``samples_before`` see ``StreamSampler``.

    Attributes:
        lost: How a reading process ended; empty while all are alive.
        failure: Why the next batch cannot be read; None if it can. With a failure the current batch is the last.
    """

    dataset: Dataset
    opt: TrainingOptions
    first_iter: int
    samples_before: int | None = None
    lost: str = ''
    failure: Exception | None = None

    def __iter__(self) -> Generator[Any, None, None]:
        """The batches.

        The next batch is read before one is given, so that all ranks learn in time of one that cannot be read. Close
        the generator if you do not take all batches. Every rank must begin it.

        Raises:
            RunError: If the first cannot be read; on every rank.
        """
        with closing(self._batches()) as batches:
            with failing_together():
                batch = next(batches, None)
            while batch is not None:
                following = None
                try:
                    following = next(batches, None)
                except Exception as error:
                    self.failure = error
                yield batch
                batch = following

    def _batches(self) -> Generator[Any, None, None]:
        taken = 0
        try:
            with closing(read_ahead(self._loader(0, self.opt['datasets']['train']['num_worker_per_gpu']))) as batches:
                for batch in batches:
                    taken += 1
                    yield batch
        except ReaderLost as lost:
            self.lost = str(lost)
        if self.lost:
            yield from self._loader(taken, 0)

    def _loader(self, taken: int, workers: int) -> DataLoader:
        """A loader of the batches after the first ``taken``."""
        train_opt, seed = self.opt['datasets']['train'], self.opt['manual_seed']
        sampler = StreamSampler(
            len(self.dataset),  # type: ignore[arg-type]
            samples_an_iteration(self.opt) // self.opt['world_size'],
            self.first_iter,
            self.opt['train']['total_iter'],
            seed,
            self.opt['rank'],
            self.opt['world_size'],
            self.samples_before,
            getattr(self.dataset, 'sets', None),
        )
        return DataLoader(
            SeededDataset(self.dataset, seed),
            batch_sampler=sampler.after(taken),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=train_opt['pin_memory'] and self.opt['num_gpu'] > 0,
        )


def single_images(dataset: Dataset) -> DataLoader:
    """This rank's share of a validation or test set, an image at a time: every world-size-th, from its own number."""
    rank, size = rank_and_size()
    named = NamedErrors(dataset)
    return DataLoader(named, batch_size=1, sampler=range(rank, len(named), size))
