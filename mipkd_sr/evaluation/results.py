"""Tables of results: printed, and kept as Markdown, CSV and JSON."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.evaluate import mean_metrics

DIGITS = {'psnr': 2, 'ssim': 4}
"""Decimals with which the papers print a metric; others have four."""


ENSEMBLE = ', x8'
"""What is added to a network's name for its self-ensemble, where both are in a table."""


@dataclass
class Row:
    """One network's results."""

    name: str  # the network's name
    parameters: int | None  # its number of parameters; None if it is not known
    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # by test set, image and metric


def format_metrics(values: Mapping[str, float | None]) -> str:
    """Values of several metrics in a cell: ``30.24 / 0.8688``; a dash for one that there is not."""
    return ' / '.join('-' if value is None else f'{value:.{digits_of(name)}f}' for name, value in values.items())


def digits_of(metric: str) -> int:
    """Decimals of a metric by the name of its result: the first word says what it is, as in ``psnr_to_teacher``."""
    return DIGITS.get(metric.split('_')[0], 4)


def markdown_row(cells: Iterable[object]) -> str:
    """One row of a Markdown table, as for a table that is printed row by row."""
    return f'| {" | ".join(map(str, cells))} |'


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as text: the first to the left, the others to the right."""
    rows = [list(header), *[list(row) for row in body]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        markdown_row(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = markdown_row('-' * w if i == 0 else '-' * (w - 1) + ':' for i, w in enumerate(widths))
    return '\n'.join([lines[0], rule, *lines[1:]])


def results_table(rows: Sequence[Row], protocol: str) -> str:
    """The table of several networks over several test sets, with the measuring protocol under it.

    A cell that a row has no values for is a dash.
    """
    sets = list(rows[0].images)
    metrics = {name: list(next(iter(rows[0].images[name].values()), {})) for name in sets}
    for row in rows:  # one more if agreement with a teacher is measured
        for name in sets:
            metrics[name] += [m for m in next(iter(row.images.get(name, {}).values()), {}) if m not in metrics[name]]
    header = ['network', 'parameters']
    header += [f'{name} {" / ".join(metric.upper() for metric in metrics[name])}' for name in sets]
    body = []
    for row in rows:
        cells = [row.name, f'{row.parameters:,}' if row.parameters is not None else '-']
        for name in sets:
            means = mean_metrics(row.images.get(name, {}))
            cells.append(format_metrics({metric: means.get(metric) for metric in metrics[name]}))
        body.append(cells)
    return f'{markdown_table(header, body)}\n\n{protocol}'


def protocol(opt: Mapping[str, Any]) -> str:
    """How a table's values were measured, in words.

    Args:
        opt: Options of a test.
    """
    val_opt = opt['val']
    parts = [
        f'{name}: {"Y channel" if metric.get("test_y_channel") else "RGB"}, '
        f'border of {metric.get("crop_border", 0)} pixels cut off'
        for name, metric in val_opt['metrics'].items()
    ]
    ensemble = {
        False: 'no self-ensemble',
        True: 'x8 self-ensemble',
        'both': 'x8 self-ensemble where the name says so',
    }[val_opt['self_ensemble']]
    grey = {
        'colour': 'grey images as three equal channels',
        'as_is': 'grey images as one channel',
    }[val_opt['grey']]
    tiled = f', in tiles of {val_opt["tile"]} with {val_opt["tile_overlap"]} around' if val_opt['tile'] else ''
    return (
        f'x{opt["scale"]}, means over images, output rounded to 8 bits, {ensemble}, {grey}{tiled}; {"; ".join(parts)}.'
    )


def write_results(rows: Sequence[Row], table: str, folder: Path) -> None:
    """Write ``table.md``, ``table.csv`` (means) and ``results.json`` (every image) to ``folder``."""
    (folder / 'table.md').write_text(table + '\n', encoding='utf-8')
    with (folder / 'table.csv').open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['network', 'parameters', 'test_set', 'metric', 'mean'])
        for row in rows:
            for test_set, images in row.images.items():
                for metric, value in mean_metrics(images).items():
                    writer.writerow([row.name, row.parameters, test_set, metric, value])
    content = {row.name: {'parameters': row.parameters, 'images': row.images} for row in rows}
    (folder / 'results.json').write_text(json.dumps(content, indent=1), encoding='utf-8')
