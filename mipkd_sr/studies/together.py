"""A table's finished cells as one test: for its pictures, and for how close each is to the teacher."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from mipkd_sr.options.reading import read_options
from mipkd_sr.runtime.files import atomic_write
from mipkd_sr.studies.paper_tables import PaperTable
from mipkd_sr.studies.table_runs import CellRun, TableRuns


def write_together(tables: Sequence[PaperTable], runs: TableRuns, folder: Path) -> list[Path]:
    """Write an option file for ``mipkd test`` for each table and scale that has finished cells.

    Its networks are the rows, its test sets those that are there, its pictures those of the table's test file.

    Returns:
        The files, ``<table>_x<scale>.yml`` in ``folder``.
    """
    files = []
    for table in tables:
        figure = read_options(table.test_file).data.get('figure')
        for scale in table.scales:
            own = [run for run in runs.runs if (run.cell.table, run.cell.scale) == (table.name, scale) and run.values()]
            if own:
                files.append(folder / f'{table.name}_x{scale}.yml')
                opt = _together(own, files[-1].stem, figure)
                with atomic_write(files[-1]) as part:
                    part.write_text(yaml.safe_dump(opt, sort_keys=False, allow_unicode=True), encoding='utf-8')
    return files


def _together(cells: Sequence[CellRun], name: str, figure: Any) -> dict[str, Any]:
    tests = {run.cell.row: run.test for run in cells if run.test is not None}
    first = next(iter(tests.values())).options
    opt: dict[str, Any] = {'name': name, **{key: deepcopy(first[key]) for key in ('scale', 'datasets', 'val')}}
    opt['networks'] = {
        row: {'network': test.options['network_g'], 'path': test.options['path']['pretrain_network_g']}
        for row, test in tests.items()
    }
    if teacher := next((run.cell.row for run in cells if run.cell.is_teacher), None):
        opt['teacher'] = teacher
    return opt | ({'skip_missing': True, 'figure': figure} if figure else {})
