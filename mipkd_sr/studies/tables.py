"""The tables of a study: values over seeds, and differences to the baseline with their intervals."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mipkd_sr.evaluation.results import digits_of
from mipkd_sr.studies.collect import Result, datasets_and_metrics, of_variant
from mipkd_sr.studies.study_file import StudyFile

Table = tuple[list[str], list[list[str]]]
"""Header and body."""
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


class Column(NamedTuple):
    """A column of a table: its label, the metric that it shows, and that metric's value of a run, if it has one.

    ``images`` gives a run's value for each image, where it is a mean over images.
    """

    label: str
    metric: str
    value: Callable[[Result], float | None]
    images: Callable[[Result], Mapping[str, float]] = lambda result: {}

    def of(self, results: Sequence[Result]) -> dict[int, float]:
        """Its value for each seed that has one."""
        return {result.seed: value for result in results if (value := self.value(result)) is not None}

    def difference(self, own: Sequence[Result], base: Sequence[Result], over: str = 'seeds') -> str:
        """By how much runs exceed others: paired by seed, or, ``over`` images, by image."""
        found = paired_by_seed(self.of(own), self.of(base))
        if over == 'images':
            measured = ({r.seed: images for r in some if (images := self.images(r))} for some in (own, base))
            found = paired_by_image(*measured)
        return difference(found, digits_of(self.metric) + 1)


def at_step(step: int | None, dataset: str, metric: str) -> Column:
    """A metric's mean on a validation set at a step; at the last if None."""
    label = f'{metric} on {dataset}' if step is None else f'{step:,} steps'
    return Column(label, metric, lambda result: result.value_at(step, dataset, metric))


def on_test_set(name: str, metric: str) -> Column:
    """A metric's mean on a test set."""

    def mean(result: Result) -> float | None:
        values = result.test_values(name, metric).values()
        return statistics.mean(values) if values else None

    return Column(f'{name} {metric}', metric, mean, lambda result: result.test_values(name, metric))


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and, for more than one value, standard deviation: ``30.24 ± 0.02``; a dash for none."""
    if not values:
        return '-'
    text = f'{statistics.mean(values):.{digits}f}'
    return text if len(values) == 1 else f'{text} ± {statistics.stdev(values):.{digits}f}'


def difference(interval: Interval | None, digits: int) -> str:
    """A difference and its interval: ``+0.031 [+0.004, +0.058]``; the difference alone where one seed is all."""
    if interval is None:
        return '-'
    text = f'{interval.mean:+.{digits}f}'
    return text if interval.size < 2 else f'{text} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]'


def end_table(study: StudyFile, results: Sequence[Result]) -> Table:
    """Each variant's last validation: its cost, mean and spread of each metric, and the difference to the baseline.

    Runs that have not finished are left out.
    """
    done = [result for result in results if result.finished]
    base = of_variant(done, study.baseline)
    header, body = ['variant', 'seeds', 'steps', 'multiply-adds', 's a step'], []
    sets = [[at_step(None, name, metric) for metric in own] for name, own in datasets_and_metrics(done).items()]
    for columns in sets:
        header += [*(column.label for column in columns), f'{columns[0].label}, less {study.baseline}']
    for name in study.variants:
        if not (own := of_variant(done, name)):
            continue
        cells = [name, str(len(own)), f'{own[0].total_iter:,}', _arithmetic(own, base)]
        seconds = [result.seconds_per_step for result in own if result.seconds_per_step is not None]
        cells.append(f'{statistics.median(seconds):.3f}' if seconds else '-')
        for columns in sets:
            cells += _spreads(columns, own)
            cells.append(columns[0].difference(own, base) if name != study.baseline else '0')
        body.append(cells)
    return header, body


def _arithmetic(own: Sequence[Result], base: Sequence[Result]) -> str:
    """A training's multiply-adds as a multiple of the baseline's, or themselves where it has none."""
    mine, theirs = (
        next((r.multiply_adds_per_step * r.total_iter for r in some if r.multiply_adds_per_step is not None), None)
        for some in (own, base)
    )
    if mine is None:
        return '-'
    return f'{mine / theirs:.2f} x' if theirs else f'{mine:.3g}'


def _spreads(columns: Sequence[Column], results: Sequence[Result]) -> list[str]:
    return [spread(list(column.of(results).values()), digits_of(column.metric)) for column in columns]


def values_table(study: StudyFile, results: Sequence[Result], columns: Sequence[Column]) -> Table:
    """Mean and spread over the seeds that have a value, for the variants that have one."""
    body = []
    for name in study.variants:
        own = of_variant(results, name)
        if seeds := max(len(column.of(own)) for column in columns):
            body.append([name, str(seeds), *_spreads(columns, own)])
    return ['variant', 'seeds', *(column.label for column in columns)], body


def differences_table(
    study: StudyFile, results: Sequence[Result], columns: Sequence[Column], over: Sequence[str] = ('seeds',)
) -> Table:
    """As ``values_table``, with differences to the baseline, and their intervals; see ``Column.difference``."""
    base, body = of_variant(results, study.baseline), []
    for name in study.variants:
        own = of_variant(results, name)
        if name != study.baseline and any(column.of(own) for column in columns):
            body.append([name, *(column.difference(own, base, what) for column in columns for what in over)])
    labels = [f'{column.label}, over {what}' if len(over) > 1 else column.label for column in columns for what in over]
    return [f'less {study.baseline}', *labels], body
