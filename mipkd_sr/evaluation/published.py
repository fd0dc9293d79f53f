"""Published results, each with its source, as rows of a table."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.results import Row
from mipkd_sr.option_types import TestingOptions
from mipkd_sr.runtime.errors import OptionError, advice, shown
from mipkd_sr.runtime.strict_yaml import read_yaml

PUBLISHED = Path(__file__).with_name('published.yml')
"""The package's own file of published results."""


def read_published(file: Path = PUBLISHED) -> dict[str, dict[Any, Any]]:
    """The published results of a file: name -> scale -> test set -> [PSNR, SSIM], and ``source``.

    A source that begins with one of the file's ``papers`` gets that paper's address behind it.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f'{file}: holds no results')
    papers = content.pop('papers', None) or {}
    return {name: _read_entry(f'{file}: {name}', entry, papers) for name, entry in content.items()}


def _read_entry(where: str, entry: Any, papers: Any) -> dict[Any, Any]:
    """One published result, its scales as numbers."""
    if not isinstance(papers, dict) or not isinstance(entry, dict) or not isinstance(entry.get('source'), str):
        raise ValueError(f'{where}: must be a mapping with a source, and scales')
    paper = entry['source'].partition(',')[0]
    found: dict[Any, Any] = dict(entry)
    if paper in papers:
        found['source'] = f'{entry["source"]}, {papers[paper]}'
    for scale in [key for key in entry if key.isdecimal()]:
        found[int(scale)] = sets = found.pop(scale)
        values = list(sets.values()) if isinstance(sets, dict) else [None]
        if not all(isinstance(cell, list) and len(cell) <= 2 and all(map(_is_cell, cell)) for cell in values):
            raise ValueError(f'{where}: {scale}: must be test sets, each with its PSNR and SSIM in brackets')
    return found


def _is_cell(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def published_values(entry: Mapping[Any, Any], scale: int, test_set: str) -> dict[str, float]:
    """One cell of a published result: those of the metrics ``psnr`` and ``ssim`` that are published."""
    values = entry.get(scale, {}).get(test_set, ())
    return {metric: value for metric, value in zip(('psnr', 'ssim'), values, strict=False) if value is not None}


def published_rows(opt: TestingOptions) -> list[Row]:
    """The published results that a test's options name, for its scale and its test sets."""
    file = Path(opt['published_file'] or PUBLISHED)
    try:
        entries = read_published(file)
    except ValueError as error:
        raise OptionError('published_file', f'{error}.') from None
    rows = []
    for name in opt['published'] or ():
        if name not in entries:
            raise OptionError('published', f'{file} has no {shown(name)}; {advice(name, entries, "it has")}')
        row = Row(f'{name} (published)', None)
        for test_set in entries[name].get(opt['scale'], {}):
            row.images[test_set] = {'mean': published_values(entries[name], opt['scale'], test_set)}
        rows.append(row)
    return rows
