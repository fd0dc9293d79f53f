"""Published results, each with its source, as rows of a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mipkd_sr.evaluation.tables import Row
from mipkd_sr.runtime.errors import OptionError

PUBLISHED = Path(__file__).with_name('published.yml')
"""The package's own file of published results."""


def read_published(file: Path = PUBLISHED) -> dict[str, dict[Any, Any]]:
    """The published results of a file: name -> scale -> test set -> [PSNR, SSIM], and ``source``.

    A source that begins with one of the file's ``papers`` gets that paper's address behind it.
    """
    entries: dict[str, dict[Any, Any]] = yaml.safe_load(file.read_text(encoding='utf-8'))
    papers = entries.pop('papers', {})
    for entry in entries.values():
        paper = str(entry['source']).partition(',')[0]
        if paper in papers:
            entry['source'] = f'{entry["source"]}, {papers[paper]}'
    return entries


def published_values(
    entries: Mapping[str, Mapping[Any, Any]], name: str, scale: int, test_set: str
) -> dict[str, float]:
    """One cell: the metrics, ``psnr`` and ``ssim``, that there are of a published result."""
    values = entries[name].get(scale, {}).get(test_set, ())
    return {metric: value for metric, value in zip(('psnr', 'ssim'), values, strict=False) if value is not None}


def published_rows(opt: Mapping[str, Any]) -> list[Row]:
    """The published results that a test's options name, for its scale and its test sets.

    Raises:
        OptionError: If there is none of such a name.
    """
    file = Path(opt['published_file'] or PUBLISHED)
    entries = read_published(file)
    rows = []
    for name in opt['published']:
        if name not in entries:
            raise OptionError('published', f"{file} has no '{name}'; it has: {', '.join(entries)}.")
        row = Row(f'{name} (published)', None)
        for test_set in entries[name].get(opt['scale'], {}):
            row.images[test_set] = {'mean': published_values(entries, name, opt['scale'], test_set)}
        rows.append(row)
    return rows
