"""The page of the papers' tables: our value, the published one and the difference, cell by cell, as far as they are."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.published import published_values, read_published
from mipkd_sr.evaluation.tables import digits_of, format_metrics, markdown_table, protocol
from mipkd_sr.runs.identity import code_versions
from mipkd_sr.runtime.files import atomic_write
from mipkd_sr.studies.paper_tables import PaperTable
from mipkd_sr.studies.table_runs import CellRun, TableRuns

METRICS = ('psnr', 'ssim')
MINIATURE = (
    '**Miniature**: networks, patches and steps are those of `miniature.yml`. The numbers show that every cell is '
    'trained, tested and compared; networks of this size after so few steps say nothing about the methods, and the '
    'differences to the published values are no measure of anything.'
)


def write_table_page(
    tables: Sequence[PaperTable], runs: TableRuns, folder: Path, command: str, miniature: bool
) -> Path:
    """Write ``report.md``, ``table.csv`` and ``results.json`` to ``folder``; returns the page.

    Raises:
        OSError: If a file cannot be written; those that were there before are still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {id(run): run.values() for run in runs.runs}
    entries = read_published()
    rows = [row for run in runs.runs for row in _values_of(run, values[id(run)], entries)]
    text = StringIO(newline='')
    writer = csv.DictWriter(text, ['table', 'row', 'scale', 'set', 'metric', 'ours', 'published'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    _write(text.getvalue(), folder / 'table.csv')
    _write(json.dumps(_raw(runs), indent=1) + '\n', folder / 'results.json')
    parts = ['# Tables of the papers', _state(runs, values), f'`{command}`']
    if miniature:
        parts.append(MINIATURE)
    for table in tables:
        parts += _section(table, runs, values, entries)
    page = folder / 'report.md'
    _write('\n\n'.join(parts) + '\n', page)
    return page


def _write(text: str, file: Path) -> None:
    with atomic_write(file) as part:
        part.write_text(text, encoding='utf-8', newline='')


def _state(runs: TableRuns, values: Mapping[int, Any]) -> str:
    measured = sum(bool(values[id(run)]) for run in runs.runs)
    text = f'{measured} of {len(runs.runs)} cells have been measured.'
    if measured < len(runs.runs):
        text += ' **These are partial results.**'
    versions = sorted({version for run_folder, _ in runs.run_folders for version in code_versions(run_folder.disk)})
    return f'{text} Trained by mipkd_sr {", ".join(versions)}.' if versions else text


def _section(
    table: PaperTable, runs: TableRuns, values: Mapping[int, Any], entries: Mapping[str, Mapping[Any, Any]]
) -> list[str]:
    own = [run for run in runs.runs if run.cell.table == table.name]
    if not own:
        return []
    parts = [f'## {table.title}']
    if table.note:
        parts.append(table.note.strip())
    for scale in table.scales:
        cells = [run for run in own if run.cell.scale == scale]
        if cells:
            parts += [f'x{scale}:', _table(cells, table.sets, values, entries)]
    measured = next((run for run in own if run.test is not None), None)
    if measured is not None and measured.test is not None:
        parts.append(f'Ours: PSNR / SSIM of the weights at the end of each run, {_how(measured.test.options)}')
    if absent := runs.absent_sets.get(table.name):
        parts.append(f'Test sets that are not there, and were left out: {", ".join(absent)}.')
    skipped = [f'{run.cell.row} x{run.cell.scale}: {run.skipped}' for run in own if run.skipped]
    parts += [f'Not run: {reason}' for reason in dict.fromkeys(skipped)]
    sources = dict.fromkeys(entries[run.cell.published]['source'] for run in own if run.cell.published)
    if sources:
        parts.append('Published values: ' + '; '.join(sources) + '.')
    last = own[-1].cell
    parts.append(f'One cell alone: `mipkd table {table.name} --only {shlex.quote(last.row)} x{last.scale}`')
    return parts


def _how(test: Mapping[str, Any]) -> str:
    """How a test measures, for a table of several scales."""
    metrics = {
        name: {**metric, 'crop_border': '`scale`'} if metric.get('crop_border') == test['scale'] else metric
        for name, metric in test['val']['metrics'].items()
    }
    return protocol({**test, 'val': {**test['val'], 'metrics': metrics}}).partition(', ')[2]


def _table(
    cells: Sequence[CellRun],
    sets: Sequence[str] | None,
    values: Mapping[int, Mapping[str, Mapping[str, float]]],
    entries: Mapping[str, Mapping[Any, Any]],
) -> str:
    """Three lines a row: ours, published, difference."""
    names = list(sets or dict.fromkeys(name for run in cells for name in values[id(run)]))
    body = []
    for run in cells:
        ours, label, scale = values[id(run)], run.cell.published, run.cell.scale
        theirs = {name: published_values(entries, label, scale, name) for name in names} if label else {}
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


def _values_of(
    run: CellRun, values: Mapping[str, Mapping[str, float]], entries: Mapping[str, Mapping[Any, Any]]
) -> list[dict[str, Any]]:
    """Every value of a cell that is measured or published, a row each."""
    cell, rows = run.cell, []
    published = entries[cell.published].get(cell.scale, {}) if cell.published else {}
    for name in dict.fromkeys([*values, *published]):
        theirs = published_values(entries, cell.published, cell.scale, name) if cell.published else {}
        for metric in METRICS:
            ours = values.get(name, {}).get(metric)
            if ours is not None or metric in theirs:
                rows.append(
                    {
                        'table': cell.table,
                        'row': cell.row,
                        'scale': cell.scale,
                        'set': name,
                        'metric': metric,
                        'ours': ours,
                        'published': theirs.get(metric),
                    }
                )
    return rows


def _raw(runs: TableRuns) -> list[dict[str, Any]]:
    """Every image's values."""
    return [
        {
            'table': run.cell.table,
            'row': run.cell.row,
            'scale': run.cell.scale,
            'published': run.cell.published,
            'run': run.run_folder.name if run.run_folder else None,
            'skipped': run.skipped,
            'images': run.test.images() if run.test is not None and run.values() else {},
        }
        for run in runs.runs
    ]
