"""Whether a difference is more than chance: paired by seed, and paired by image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence of every interval."""
RESAMPLES = 10_000
"""Draws of the bootstrap."""


class Interval(NamedTuple):
    """A mean of ``size`` values, and the ends of its interval; NaN if there is too little to tell."""

    mean: float
    low: float
    high: float
    size: int


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, and Student's 95 % interval around it: ``mean ± t_{n-1} s / sqrt(n)``."""
    mean, count = float(np.mean(values)), len(values)
    half = float('nan')
    if count > 1:
        half = float(stats.t.ppf(0.5 + LEVEL / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def paired_by_seed(own: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """The difference to a baseline, seed by seed, with a t-interval over seeds; None if they share no seed."""
    shared = [seed for seed in own if seed in baseline]
    return t_interval([own[seed] - baseline[seed] for seed in shared]) if shared else None


def paired_by_image(
    own: Mapping[int, Mapping[str, float]], baseline: Mapping[int, Mapping[str, float]]
) -> Interval | None:
    """The difference to a baseline, image by image (a mean over the seeds that both have), with a bootstrap interval.

    ``own`` and ``baseline`` have for each seed each image's value. Images are drawn with replacement, 10,000 times. The
    interval is from the 2.5th to the 97.5th percentile of the means. It shows how much depends on the choice of images,
    and nothing about the seeds. None if they share no seed or no image.
    """
    shared = [number for number in own if number in baseline]
    measured = [side[number] for number in shared for side in (own, baseline)]
    images = [name for name in measured[0] if all(name in values for values in measured)] if measured else []
    if not images:
        return None
    values = [[own[number][name] - baseline[number][name] for name in images] for number in shared]
    differences = np.mean(values, axis=0)
    draws = np.random.default_rng(0).integers(len(images), size=(RESAMPLES, len(images)))
    low, high = np.percentile(differences[draws].mean(axis=1), [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    return Interval(float(np.mean(differences)), float(low), float(high), len(images))
