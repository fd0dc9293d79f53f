"""Published results, each with its source, as rows of a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mipkd_sr.evaluation.tables import Row
from mipkd_sr.runtime.errors import OptionError

PUBLISHED = Path(__file__).with_name('published.yml')
"""The package's own file of published results."""


def published_rows(opt: Mapping[str, Any]) -> list[Row]:
    """The published results that a test's options name, for its scale and its test sets.

    Raises:
        OptionError: If there is none of such a name.
    """
    file = Path(opt['published_file'] or PUBLISHED)
    entries = yaml.safe_load(file.read_text(encoding='utf-8'))
    rows = []
    for name in opt['published']:
        if name not in entries:
            raise OptionError('published', f"{file} has no '{name}'; it has: {', '.join(entries)}.")
        row = Row(f'{name} (published)', None)
        for set_name, values in entries[name].get(opt['scale'], {}).items():
            found = {metric: value for metric, value in zip(('psnr', 'ssim'), values, strict=True) if value is not None}
            row.images[set_name] = {'mean': found}
        rows.append(row)
    return rows
