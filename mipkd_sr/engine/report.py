"""Tables of results: printed, and kept as Markdown, CSV and JSON."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mipkd_sr.engine.evaluate import mean_metrics

DIGITS = {'psnr': 2, 'ssim': 4}
"""Decimals with which the papers print a metric; others have four."""


@dataclass
class Row:
    """One network's results.

    Attributes:
        name: The network's name.
        parameters: Its number of parameters.
        images: For each test set, for each image, each metric's value.
    """

    name: str
    parameters: int
    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def format_metrics(values: Mapping[str, float]) -> str:
    """Values of several metrics in a cell: ``30.24 / 0.8688``."""
    return ' / '.join(f'{value:.{DIGITS.get(name, 4)}f}' for name, value in values.items())


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as text: the first to the left, the others to the right."""
    rows = [list(header), *[list(row) for row in body]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        '| '
        + ' | '.join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + ' |'
        for row in rows
    ]
    rule = '| ' + ' | '.join('-' * w if i == 0 else '-' * (w - 1) + ':' for i, w in enumerate(widths)) + ' |'
    return '\n'.join([lines[0], rule, *lines[1:]])


def results_table(rows: Sequence[Row], protocol: str) -> str:
    """The table of several networks over several test sets, with the measuring protocol under it."""
    sets = list(rows[0].images)
    metrics = list(next(iter(rows[0].images[sets[0]].values()), {}))
    header = ['network', 'parameters', *(f'{name} {" / ".join(metric.upper() for metric in metrics)}' for name in sets)]
    body = [
        [row.name, f'{row.parameters:,}', *(format_metrics(mean_metrics(row.images[name])) for name in sets)]
        for row in rows
    ]
    return f'{markdown_table(header, body)}\n\n{protocol}'


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
