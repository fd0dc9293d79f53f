"""Several training sets in one: which of them each sample of a run is taken from."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, default_collate


class MixedDataset(ConcatDataset):
    """Training sets, mixed in given shares: ``weights`` say how often each is drawn from, relative to the others.

    Attributes:
        opt: The options of the first, which are the loader's.
        sets: Length and share of each; the shares are of sum 1.
        paths: The sets' files, in their order.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float], opt: Mapping[str, Any]) -> None:
        super().__init__(datasets)
        exact = [Fraction(weight).limit_denominator(10_000) for weight in weights]
        self.sets = [(len(one), weight / sum(exact)) for one, weight in zip(datasets, exact, strict=True)]  # type: ignore[arg-type]
        self.opt = opt
        self.paths = [path for dataset in datasets for path in getattr(dataset, 'paths', [''] * len(dataset))]  # type: ignore[arg-type]


def place(sample: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """Which set the ``sample``-th sample of a run is from, and its number among that set's, both from 0.

    A set's samples are spread evenly: of two sets one of share w has b w, rounded up or down, of any b samples in a
    row; of k sets it has at least one where b w is k - 1.
    """
    left = Fraction(1)
    for number, share in enumerate(shares[:-1]):
        part = share / left
        before, after = int(sample * part), int((sample + 1) * part)
        if after > before:
            return number, before
        sample -= before
        left -= share
    return len(shares) - 1, sample


def collate(samples: Sequence[Any]) -> Any:
    """Collate samples; those of sets that give different things by themselves, under ``groups``.

    Returns:
        What torch's collation gives; or ``groups``, pairs of the samples' numbers and their batch.
    """
    kinds: dict[Any, list[int]] = {}
    for number, sample in enumerate(samples):
        of = [(key, getattr(value, 'shape', None)) for key, value in sample.items()] if isinstance(sample, dict) else 0
        kinds.setdefault(str(of), []).append(number)
    if len(kinds) <= 1:
        return default_collate(list(samples))
    return {'groups': [(numbers, default_collate([samples[n] for n in numbers])) for numbers in kinds.values()]}
