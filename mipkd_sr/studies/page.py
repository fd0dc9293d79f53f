"""The page of a study: Markdown, with tables, curves and the commands that made the numbers. Each time it is written
anew."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.figures import curves_figure
from mipkd_sr.evaluation.results import digits_of, markdown_table, protocol
from mipkd_sr.studies.collect import Result, datasets_and_metrics, of_variant, test_sets
from mipkd_sr.studies.pipeline import PARTIAL
from mipkd_sr.studies.study_file import StudyFile
from mipkd_sr.studies.tables import (
    Table,
    at_step,
    differences_table,
    end_table,
    on_test_set,
    values_table,
)


def page_text(study: StudyFile, total: int, results: Sequence[Result], command: str, of_runs: Sequence[str]) -> str:
    """The page's text, of a study of ``total`` runs, of which ``results`` are known.

    ``command`` makes the whole study, those in ``of_runs`` a run each.
    """
    parts = [f'# {_escaped(study.folder.name)}: report', _state(total, results)]
    done = [result for result in results if result.finished]
    if done:
        parts += ['## At the end', _END_TEXT.format(baseline=_escaped(study.baseline)), _table(end_table(study, done))]
    if results:
        parts += ['## Over the steps', _CURVES_TEXT, '![curves](curves.png)']
        for dataset, metrics in datasets_and_metrics(results).items():
            if study.report_at:
                columns = [at_step(step, dataset, metrics[0]) for step in study.report_at]
                tables = (make(study, results, columns) for make in (values_table, differences_table))
                parts += [f'{metrics[0]} on {dataset}:', *(_table(table) for table in tables if table[1])]
    if study.test is not None and any(result.tests for result in results):
        columns = [on_test_set(name, metric) for name, own in test_sets(results).items() for metric in own]
        firsts = [on_test_set(name, own[0]) for name, own in test_sets(results).items()]
        parts += [
            '## Test sets',
            _TEST_TEXT.format(protocol=protocol(study.test)),
            _table(values_table(study, results, columns)),
        ]
        if (differences := differences_table(study, results, firsts, over=('seeds', 'images')))[1]:
            parts += [_TEST_DIFFERENCES_TEXT, _table(differences)]
    parts += [
        '## Commands',
        f'From the folder that holds `experiments`, the whole study: `{command}`. Run by run:',
        '\n'.join(['```', *of_runs, '```']),
    ]
    return '\n\n'.join(parts) + '\n'


_END_TEXT = (
    'The last validation of each run that has finished: mean and standard deviation over seeds. Differences to '
    '"{baseline}" are paired by seed; in brackets is the 95 % t-interval over seeds. Multiply-adds are those of the '
    'whole training, teacher included, as a multiple of the same; seconds a step were measured before the runs, where '
    'that was done.'
)
_CURVES_TEXT = (
    'Validation against steps, seconds and multiply-adds: means over the seeds that have got there, with bands from '
    'least to greatest. '
    'Seconds are steps times seconds a step, as in the table; validations are not counted. At a step in the middle of '
    'its schedule a longer run is not the same as a shorter one at its end.'
)
_TEST_TEXT = (
    'The weights at the end of each run, measured once; nothing was chosen by them. {protocol} Mean and standard '
    'deviation over seeds.'
)
_TEST_DIFFERENCES_TEXT = (
    'Differences in the first metric: with the 95 % t-interval over seeds, and with a bootstrap interval over images '
    '(each image a mean over seeds; it tells nothing of the seeds).'
)


def _state(total: int, results: Sequence[Result]) -> str:
    finished = sum(result.finished for result in results)
    text = f'{finished} of {total} runs have finished.'
    if finished < total:
        text += f'{PARTIAL}: {len(results) - finished} more have begun, and the intervals are of what there is.'
    versions = sorted({version for result in results for version in result.code})
    unknown = sum(not result.code for result in results)
    if versions:
        text += f' Trained by mipkd_sr {", ".join(versions)}.'
    if unknown:
        text += f' For {unknown} runs the version of the code is not known.'
    return text


def _table(table: Table) -> str:
    header, body = table
    return markdown_table([_escaped(cell) for cell in header], [[_escaped(cell) for cell in row] for row in body])


def _escaped(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')


def csv_text(results: Sequence[Result]) -> str:
    """Every validation's and every test set's means, a value a row."""
    rows: list[list[Any]] = [['variant', 'seed', 'steps', 'set', 'kind', 'metric', 'value']]
    for result in results:
        for entry in result.validations:
            rows += [
                [result.variant, result.seed, entry['iter'], entry['dataset'], 'validation', name, value]
                for name, value in entry.items()
                if name not in ('iter', 'dataset')
            ]
        for name, images in result.tests.items():
            for metric, mean in mean_metrics(images).items():
                rows.append([result.variant, result.seed, result.total_iter, name, 'test', metric, mean])
    text = StringIO(newline='')
    csv.writer(text).writerows(rows)
    return text.getvalue()


def draw_curves(study: StudyFile, results: Sequence[Result]) -> list[Path]:
    """Draw the first metric on the first validation set against steps, seconds and multiply-adds."""
    dataset, metrics = next(iter(datasets_and_metrics(results).items()))
    steps = {name: curve for name in study.variants if (curve := _mean_curve(results, name, dataset, metrics[0])).size}
    panels = {'steps': steps}
    for label, name in (('seconds', 'seconds_per_step'), ('multiply-adds', 'multiply_adds_per_step')):
        costs = {variant: getattr(of_variant(results, variant)[0], name) for variant in steps}
        scaled = {
            variant: np.concatenate([cost * steps[variant][:1], steps[variant][1:]])
            for variant, cost in costs.items()
            if cost is not None
        }
        if scaled:
            panels[label] = scaled
    unit = ', dB' if digits_of(metrics[0]) == 2 else ''
    return curves_figure(panels, f'{metrics[0].upper()} on {dataset}{unit}', study.folder / 'curves')


def _mean_curve(results: Sequence[Result], variant: str, dataset: str, metric: str) -> np.ndarray:
    """4 x points: steps, and the mean, least and greatest value over the seeds that have reached that step."""
    at: dict[int, list[float]] = {}
    for result in of_variant(results, variant):
        for step, value in result.curve(dataset, metric):
            at.setdefault(step, []).append(value)
    points = [(step, np.mean(values), min(values), max(values)) for step, values in sorted(at.items())]
    return np.array(points, float).T.reshape(4, len(points))
