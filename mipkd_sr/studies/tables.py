"""The tables of a study: values over seeds, and differences to the baseline with their intervals."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mipkd_sr.evaluation.results import digits_of
from mipkd_sr.studies.collect import Result, datasets_and_metrics, of_variant, test_sets
from mipkd_sr.studies.statistics import Interval, paired_by_image, paired_by_seed
from mipkd_sr.studies.study_file import StudyFile

Table = tuple[list[str], list[list[str]]]
"""Header and body."""


class Column(NamedTuple):
    """A column of a table: its label, the metric that it shows, and that metric's value of a run, if it has one."""

    label: str
    metric: str
    value: Callable[[Result], float | None]

    def of(self, results: Sequence[Result]) -> dict[int, float]:
        """Its value for each seed that has one."""
        return {result.seed: value for result in results if (value := self.value(result)) is not None}

    def difference(self, own: Sequence[Result], base: Sequence[Result]) -> str:
        """By how much runs exceed others, paired by seed."""
        return difference(paired_by_seed(self.of(own), self.of(base)), digits_of(self.metric) + 1)


def at_step(step: int | None, dataset: str, metric: str) -> Column:
    """A metric's mean on a validation set at a step; at the last if None."""
    label = f'{metric} on {dataset}' if step is None else f'{step:,} steps'
    return Column(label, metric, lambda result: result.value_at(step, dataset, metric))


def on_test_set(name: str, metric: str) -> Column:
    """A metric's mean on a test set."""

    def mean(result: Result) -> float | None:
        values = result.test_values(name, metric).values()
        return statistics.mean(values) if values else None

    return Column(f'{name} {metric}', metric, mean)


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
        cells = [name, str(len(own)), f'{own[0].total_iter:,}', _ratio(_arithmetic(own), _arithmetic(base))]
        seconds = [result.seconds_per_step for result in own if result.seconds_per_step is not None]
        cells.append(f'{statistics.median(seconds):.3f}' if seconds else '-')
        for columns in sets:
            cells += _spreads(columns, own)
            cells.append(columns[0].difference(own, base) if name != study.baseline else '0')
        body.append(cells)
    return header, body


def _arithmetic(results: Sequence[Result]) -> float | None:
    counted = [r.multiply_adds_per_step * r.total_iter for r in results if r.multiply_adds_per_step is not None]
    return counted[0] if counted else None


def _ratio(own: float | None, base: float | None) -> str:
    """Multiply-adds as a multiple of the baseline's, or themselves where it has none."""
    if own is None:
        return '-'
    return f'{own / base:.2f} x' if base else f'{own:.3g}'


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


def differences_table(study: StudyFile, results: Sequence[Result], columns: Sequence[Column]) -> Table:
    """As ``values_table``, with differences to the baseline, paired by seed, and their intervals."""
    base, body = of_variant(results, study.baseline), []
    for name in study.variants:
        own = of_variant(results, name)
        if name != study.baseline and any(column.of(own) for column in columns):
            body.append([name, *(column.difference(own, base) for column in columns)])
    return [f'less {study.baseline}', *(column.label for column in columns)], body


def test_differences(study: StudyFile, results: Sequence[Result]) -> Table:
    """Differences to the baseline of each test set's first metric: paired by seed, and paired by image."""
    firsts = {name: metrics[0] for name, metrics in test_sets(results).items()}
    columns = [on_test_set(name, metric) for name, metric in firsts.items()]
    _, over_seeds = differences_table(study, results, columns)
    base, body = of_variant(results, study.baseline), []
    for name, *cells in over_seeds:
        row = [name]
        for (test_set, metric), cell in zip(firsts.items(), cells, strict=True):
            mine, theirs = (
                {result.seed: result.test_values(test_set, metric) for result in some if test_set in result.tests}
                for some in (of_variant(results, name), base)
            )
            row += [cell, difference(paired_by_image(mine, theirs), digits_of(metric) + 1)]
        body.append(row)
    labels = [f'{column.label}, over {what}' for column in columns for what in ('seeds', 'images')]
    return [f'less {study.baseline}', *labels], body
