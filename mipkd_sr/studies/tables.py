"""The tables of a study: values over seeds, and differences to the baseline with their intervals."""

import statistics
from collections.abc import Sequence

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.tables import digits_of
from mipkd_sr.studies.collect import Result, by_seed, datasets_and_metrics, of_variant
from mipkd_sr.studies.plan import Study
from mipkd_sr.studies.statistics import Interval, paired_by_image, paired_by_seed

Table = tuple[list[str], list[list[str]]]
"""Header and body."""


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


def rows_of(study: Study, results: Sequence[Result]) -> list[str]:
    """The variants that have results, in the study's order."""
    return [name for name in study.variants if of_variant(results, name)]


def end_table(study: Study, results: Sequence[Result]) -> Table:
    """Each variant's last validation: what it took, mean and spread of each metric, and the difference to the baseline.

    Runs that have not finished are left out.
    """
    done = [result for result in results if result.finished]
    sets = datasets_and_metrics(done)
    first = next(iter(next(iter(sets.values()), [])), '')
    header = ['variant', 'seeds', 'steps', 'multiply-adds', 's a step']
    for dataset, metrics in sets.items():
        header += [f'{metric} on {dataset}' for metric in metrics]
        header.append(f'{first} on {dataset}, less {study.baseline}')
    base = of_variant(done, study.baseline)
    arithmetic = _arithmetic(base)
    body = []
    for name in rows_of(study, done):
        own = of_variant(done, name)
        cells = [name, str(len(own)), f'{own[0].total_iter:,}', _ratio(_arithmetic(own), arithmetic)]
        seconds = [result.seconds_per_step for result in own if result.seconds_per_step is not None]
        cells.append(f'{statistics.median(seconds):.3f}' if seconds else '-')
        for dataset, metrics in sets.items():
            for metric in metrics:
                values = by_seed(own, None, dataset, metric)
                cells.append(spread(list(values.values()), digits_of(metric)))
            cells.append(_difference_at(None, own, base, dataset, first) if name != study.baseline else '0')
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


def _difference_at(step: int | None, own: Sequence[Result], base: Sequence[Result], dataset: str, metric: str) -> str:
    mine, theirs = (by_seed(some, step, dataset, metric) for some in (own, base))
    return difference(paired_by_seed(mine, theirs), digits_of(metric) + 1)


def steps_table(study: Study, results: Sequence[Result], dataset: str, metric: str) -> Table:
    """A metric on a validation set after the steps that ``report_at`` names: mean and spread over the seeds there."""
    header = ['variant', *(f'{step:,} steps' for step in study.report_at)]
    body = []
    for name in rows_of(study, results):
        own = of_variant(results, name)
        values = [list(by_seed(own, step, dataset, metric).values()) for step in study.report_at]
        body.append([name, *(spread(found, digits_of(metric)) for found in values)])
    return header, body


def steps_differences(study: Study, results: Sequence[Result], dataset: str, metric: str) -> Table:
    """As ``steps_table``, the differences to the baseline, paired by seed, with their intervals."""
    header = [f'less {study.baseline}', *(f'{step:,} steps' for step in study.report_at)]
    base = of_variant(results, study.baseline)
    body = []
    for name in rows_of(study, results):
        if name != study.baseline:
            own = of_variant(results, name)
            body.append([name, *(_difference_at(step, own, base, dataset, metric) for step in study.report_at)])
    return header, body


def test_sets(results: Sequence[Result]) -> dict[str, list[str]]:
    """The test sets that have been measured, and the metrics of each."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, images in result.tests.items():
            found.setdefault(name, list(next(iter(images.values()), {})))
    return found


def test_table(study: Study, results: Sequence[Result]) -> Table:
    """Means over images on each test set: mean and spread over seeds."""
    sets = test_sets(results)
    header = ['variant', 'seeds', *(f'{name} {metric}' for name, metrics in sets.items() for metric in metrics)]
    body = []
    for variant in study.variants:
        own = [result for result in of_variant(results, variant) if result.tests]
        if not own:
            continue
        cells = [variant, str(len(own))]
        for name, metrics in sets.items():
            means = [mean_metrics(result.tests[name]) for result in own if name in result.tests]
            cells += [spread([row[metric] for row in means if metric in row], digits_of(metric)) for metric in metrics]
        body.append(cells)
    return header, body


def test_differences(study: Study, results: Sequence[Result]) -> Table:
    """Differences to the baseline of each test set's first metric: paired by seed, and paired by image."""
    sets = test_sets(results)
    header = [f'less {study.baseline}']
    for name, metrics in sets.items():
        header += [f'{name} {metrics[0]}, over seeds', f'{name} {metrics[0]}, over images']
    base, body = of_variant(results, study.baseline), []
    for variant in study.variants:
        own = [result for result in of_variant(results, variant) if result.tests]
        if not own or variant == study.baseline:
            continue
        cells = [variant]
        for name, metrics in sets.items():
            mine, theirs = (
                {result.seed: result.test_values(name, metrics[0]) for result in some if name in result.tests}
                for some in (own, base)
            )
            over_seeds = paired_by_seed(_means(mine), _means(theirs))
            digits = digits_of(metrics[0]) + 1
            cells += [difference(over_seeds, digits), difference(paired_by_image(mine, theirs), digits)]
        body.append(cells)
    return header, body


def _means(values: dict[int, dict[str, float]]) -> dict[int, float]:
    return {seed: statistics.mean(images.values()) for seed, images in values.items() if images}
