"""The page of the papers' tables: for each cell our value, the published one and the difference, if there are such."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import yaml

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.published import published_values
from mipkd_sr.evaluation.results import digits_of, format_metrics, markdown_table, protocol
from mipkd_sr.options.reading import read_options
from mipkd_sr.studies.collect import Result
from mipkd_sr.studies.cost_tables import cost_section
from mipkd_sr.studies.job import Job
from mipkd_sr.studies.paper_tables import Cell, PaperTable
from mipkd_sr.studies.pipeline import PARTIAL

METRICS = ('psnr', 'ssim')
Published = Mapping[str, Mapping[Any, Any]]
"""The published results; see ``mipkd_sr.evaluation.published.read_published``."""


@dataclass
class CellRun:
    """A cell on this machine: its run, or why it cannot be run, and what that has measured."""

    cell: Cell
    job: Job | None
    skipped: str = ''
    result: Result | None = None

    def values(self) -> dict[str, dict[str, float]]:
        """For each test set the means over images; empty before the end."""
        return {name: mean_metrics(images) for name, images in self.result.tests.items()} if self.result else {}


def page_text(
    tables: Sequence[PaperTable],
    runs: Sequence[CellRun],
    costs: Mapping[str, Mapping[str, Any]],
    absent_sets: Mapping[str, Sequence[str]],
    published: Published,
    command: str,
) -> str:
    """The page's text.

    ``costs`` is by table, see ``measure_costs``; so is ``absent_sets``, the test sets that are not there and are left
    out. ``command`` is the command behind the page.
    """
    parts = ['# Tables of the papers', _state(runs), f'`{command}`']
    for table in tables:
        own = [run for run in runs if run.cell.table == table.name]
        if not own:
            continue
        parts += [f'## {table.opt["title"]}', *([table.opt['note'].strip()] if table.opt['note'] else [])]
        if table.name in costs:
            parts += cost_section([run.cell for run in own], costs[table.name], published)
        elif table.opt['measure'] is None:
            parts += _of_runs(table, own, absent_sets.get(table.name, ()), published)
        if sources := dict.fromkeys(published[run.cell.published]['source'] for run in own if run.cell.published):
            parts.append('Published values: ' + '; '.join(sources) + '.')
        last = own[-1].cell
        parts.append(f'One cell alone: `mipkd table {table.name} --only {shlex.quote(last.row)} x{last.scale}`')
    return '\n\n'.join(parts) + '\n'


def _state(runs: Sequence[CellRun]) -> str:
    trained = [run for run in runs if run.job or run.skipped]
    measured = sum(bool(run.values()) for run in trained)
    text = f'{measured} of {len(trained)} cells have been measured.' + (
        f'{PARTIAL}.' if measured < len(trained) else ''
    )
    versions = sorted({version for run in runs if run.result for version in run.result.code})
    return f'{text} Trained by mipkd_sr {", ".join(versions)}.' if versions else text


def _of_runs(table: PaperTable, runs: Sequence[CellRun], absent: Sequence[str], published: Published) -> list[str]:
    parts = []
    for scale in table.opt['scales']:
        if cells := [run for run in runs if run.cell.scale == scale]:
            parts += [f'x{scale}:', _table(cells, table.opt['sets'], published)]
    tested = next((run.job.test.options for run in runs if run.job and run.job.test), None)
    if tested is not None:
        parts.append(f'Ours: PSNR / SSIM of the weights at the end of each run, {_how(tested)}')
    if absent:
        parts.append(f'Test sets that are not there, and were left out: {", ".join(absent)}.')
    skipped = [f'Not run: {run.cell.row} x{run.cell.scale}: {run.skipped}' for run in runs if run.skipped]
    return [*parts, *dict.fromkeys(skipped)]


def _how(test: Mapping[str, Any]) -> str:
    """How a test measures, for a table of several scales."""
    metrics = {
        name: {**metric, 'crop_border': '`scale`'} if metric.get('crop_border') == test['scale'] else metric
        for name, metric in test['val']['metrics'].items()
    }
    return protocol({**test, 'val': {**test['val'], 'metrics': metrics}}).partition(', ')[2]


def _table(cells: Sequence[CellRun], sets: Sequence[str] | None, published: Published) -> str:
    """Three lines a row: ours, published, difference."""
    names = list(sets or dict.fromkeys(name for run in cells for name in run.values()))
    body = []
    for run in cells:
        ours, label, scale = run.values(), run.cell.published, run.cell.scale
        theirs = {name: published_values(published, label, scale, name) for name in names} if label else {}
        body.append([run.cell.row, 'ours', *(format_metrics(_of(ours.get(name, {}))) for name in names)])
        if any(theirs.values()):
            body.append(['', 'published', *(format_metrics(_of(theirs[name])) for name in names)])
            if any(ours.get(name) and theirs[name] for name in names):
                body.append(['', 'difference', *(_difference(ours.get(name, {}), theirs[name]) for name in names)])
    return markdown_table(['row', '', *names], body)


def _of(values: Mapping[str, float]) -> dict[str, float | None]:
    return {metric: values.get(metric) for metric in METRICS}


def _difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    return ' / '.join(
        f'{ours[metric] - theirs[metric]:+.{digits_of(metric)}f}' if metric in ours and metric in theirs else '-'
        for metric in METRICS
    )


def csv_text(runs: Sequence[CellRun], published: Published) -> str:
    """Every value of a cell that is measured or published, a row each."""
    text = StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['table', 'row', 'scale', 'set', 'metric', 'ours', 'published'])
    for run in runs:
        cell, values = run.cell, run.values()
        theirs = published[cell.published].get(cell.scale, {}) if cell.published else {}
        for name in dict.fromkeys([*values, *theirs]):
            their = published_values(published, cell.published, cell.scale, name) if cell.published else {}
            for metric in METRICS:
                ours = values.get(name, {}).get(metric)
                if ours is not None or metric in their:
                    writer.writerow([cell.table, cell.row, cell.scale, name, metric, ours, their.get(metric)])
    return text.getvalue()


def together(tables: Sequence[PaperTable], runs: Sequence[CellRun]) -> dict[str, str]:
    """An option file for ``mipkd test`` for each table and scale that has finished cells, by its name.

    Its networks are the rows, its test sets those that exist, its pictures those of the table's test file. It draws the
    crops of all rows, and measures how close they are to the teacher.
    """
    files = {}
    for table in tables:
        for scale in table.opt['scales']:
            own = [run for run in runs if (run.cell.table, run.cell.scale) == (table.name, scale) and run.values()]
            tests = {run.cell.row: run.job.test.options for run in own if run.job and run.job.test}
            if not tests:
                continue
            name, first = f'{table.name}_x{scale}', next(iter(tests.values()))
            opt: dict[str, Any] = {'name': name, **{key: first[key] for key in ('scale', 'datasets', 'val')}}
            opt['networks'] = {
                row: {'network': test['network_g'], 'path': test['path']['pretrain_network_g']}
                for row, test in tests.items()
            }
            if teacher := next((run.cell.row for run in own if run.cell.is_teacher), None):
                opt['teacher'] = teacher
            if figure := read_options(table.test_file).data.get('figure'):
                opt |= {'skip_missing': True, 'figure': figure}
            files[f'{name}.yml'] = yaml.safe_dump(opt, sort_keys=False, allow_unicode=True)
    return files
