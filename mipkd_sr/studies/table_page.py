"""The page of the papers' tables: for each cell our value, the published one and the difference, if there are such."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import yaml

from mipkd_sr.evaluation.published import published_values
from mipkd_sr.evaluation.results import digits_of, format_metrics, markdown_table, protocol
from mipkd_sr.options.reading import read_options
from mipkd_sr.studies.paper_tables import Cell, PaperTable
from mipkd_sr.studies.pipeline import PARTIAL

METRICS = ('psnr', 'ssim')


def page_text(tables: Sequence[PaperTable], command: str) -> str:
    """The page's text. ``command`` is the command behind the page."""
    cells = [cell for table in tables for cell in table.cells]
    parts = ['# Tables of the papers', _state(cells), f'`{command}`']
    for table in tables:
        if not table.cells:
            continue
        parts += [f'## {table.opt["title"]}', *([table.opt['note'].strip()] if table.opt['note'] else [])]
        parts += _of_runs(table)
        if sources := dict.fromkeys(cell.published['source'] for cell in table.cells if cell.published):
            parts.append('Published values: ' + '; '.join(sources) + '.')
        last = table.cells[-1]
        parts.append(f'One cell alone: `mipkd table {table.name} --only {shlex.quote(last.row)} x{last.scale}`')
    return '\n\n'.join(parts) + '\n'


def _state(cells: Sequence[Cell]) -> str:
    trained = [cell for cell in cells if cell.job or cell.skipped]
    measured = sum(bool(cell.values()) for cell in trained)
    text = f'{measured} of {len(trained)} cells have been measured.'
    text += f'{PARTIAL}.' if measured < len(trained) else ''
    versions = sorted({version for cell in cells if cell.result for version in cell.result.code})
    return f'{text} Trained by mipkd_sr {", ".join(versions)}.' if versions else text


def _of_runs(table: PaperTable) -> list[str]:
    parts = []
    for scale, cells in table.at_scales():
        parts += [f'x{scale}:', _table(cells, table.opt['sets'])]
    if tested := next((cell.job.test for cell in table.cells if cell.job and cell.job.test), None):
        parts.append(f'Ours: PSNR / SSIM of the weights at the end of each run, {_how(tested)}')
    if table.absent_sets:
        parts.append(f'Test sets that are not there, and were left out: {", ".join(table.absent_sets)}.')
    skipped = [f'Not run: {cell.row} x{cell.scale}: {cell.skipped}' for cell in table.cells if cell.skipped]
    return [*parts, *dict.fromkeys(skipped)]


def _how(test: Mapping[str, Any]) -> str:
    """How a test measures, for a table of several scales."""
    metrics = {
        name: {**metric, 'crop_border': '`scale`'} if metric.get('crop_border') == test['scale'] else metric
        for name, metric in test['val']['metrics'].items()
    }
    return protocol({**test, 'val': {**test['val'], 'metrics': metrics}}).partition(', ')[2]


def _table(cells: Sequence[Cell], sets: Sequence[str] | None) -> str:
    """Three lines a row: ours, published, difference."""
    names = list(sets or dict.fromkeys(name for cell in cells for name in cell.values()))
    body = []
    for cell in cells:
        ours = cell.values()
        theirs = {name: published_values(cell.published, cell.scale, name) for name in names}
        body.append([cell.row, 'ours', *(format_metrics(_of(ours.get(name, {}))) for name in names)])
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


def csv_text(tables: Sequence[PaperTable]) -> str:
    """Every value of a cell that is measured or published, a row each."""
    text = StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['table', 'row', 'scale', 'set', 'metric', 'ours', 'published'])
    for cell in (cell for table in tables for cell in table.cells):
        values = cell.values()
        for name in dict.fromkeys([*values, *cell.published.get(cell.scale, {})]):
            their = published_values(cell.published, cell.scale, name)
            for metric in METRICS:
                ours = values.get(name, {}).get(metric)
                if ours is not None or metric in their:
                    writer.writerow([cell.table, cell.row, cell.scale, name, metric, ours, their.get(metric)])
    return text.getvalue()


def together(tables: Sequence[PaperTable]) -> dict[str, str]:
    """An option file for ``mipkd test`` for each table and scale that has finished cells, by its name.

    Its networks are the rows, its test sets those that exist, its pictures those of the table's test file. It draws the
    crops of all rows, and measures how close they are to the teacher.
    """
    files = {}
    for table in tables:
        for scale, cells in table.at_scales():
            own = [cell for cell in cells if cell.values()]
            tests = {cell.row: cell.job.test for cell in own if cell.job and cell.job.test}
            if not tests:
                continue
            name, first = f'{table.name}_x{scale}', next(iter(tests.values()))
            opt: dict[str, Any] = {'name': name, **{key: first[key] for key in ('scale', 'datasets', 'val')}}
            opt['networks'] = {
                row: {'network': test['network_g'], 'path': test['path']['pretrain_network_g']}
                for row, test in tests.items()
            }
            if teacher := next((cell.row for cell in own if cell.is_teacher), None):
                opt['teacher'] = teacher
            if figure := read_options(table.test_file).data.get('figure'):
                opt |= {'skip_missing': True, 'figure': figure}
            files[f'{name}.yml'] = yaml.safe_dump(opt, sort_keys=False, allow_unicode=True)
    return files
