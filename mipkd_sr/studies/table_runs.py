"""The runs behind the papers' tables: the cells, and teachers whose weights are absent."""

import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mipkd_sr.options.reading import force_options, read_options
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.studies.collect import Result
from mipkd_sr.studies.job import Job, trained_in
from mipkd_sr.studies.paper_tables import Cell, PaperTable
from mipkd_sr.studies.pipeline import Pipeline, missing_files
from mipkd_sr.studies.study_file import checked_test, slug
from mipkd_sr.studies.table_page import csv_text, page_text, together

SEED = 0
"""The papers report one run of each cell."""


class Tables(Pipeline):
    """The cells of tables; see ``Pipeline``."""

    def __init__(self, tables: Sequence[PaperTable], root: Path, folder: Path, command: Sequence[str | Path]) -> None:
        self.root, self.tables = root, tables
        self.found, self.known = trained_in(root), dict[Path, str]()
        self.made: dict[str, list[Job]] = {}
        self.cells = [cell for table in tables for cell in table.cells]
        for table in tables:
            for scale, cells in table.at_scales():
                test, table.absent_sets = _test_options(table, scale, root)
                for cell in cells:
                    self._locate(cell, test)
        own = {cell.job for cell in self.cells if cell.job}
        needed = {job for one in own for job in (one.teacher, one.twin)}
        jobs = [job for same in self.made.values() for job in same if job in own or job in needed]
        super().__init__(root, folder, command, jobs)

    def _locate(self, cell: Cell, test: dict[str, Any]) -> None:
        """Locate one cell, and its teacher if that has to be trained."""
        row, teacher = f'{cell.table}, {cell.row} x{cell.scale}', None
        if cell.teacher_file is not None:
            given = self.root / Path(cell.teacher_file).expanduser()
            is_there = given.is_file()
            if cell.is_teacher:
                cell.job = self._job(row, given.stem, cell.options, test, given=given if is_there else None)
                return
            if not is_there:
                teacher = self._job('teacher', given.stem, cell.teacher_options, None)
        name = f'{slug(cell.table)}_{slug(cell.row)}_x{cell.scale}'
        cell.job = self._job(row, name, cell.options, test, teacher)
        if missing := missing_files(cell.job):
            cell.job, cell.skipped = None, str(missing[0]).replace(f'{self.root}/', '')

    def _job(
        self,
        variant: str,
        name: str,
        options: dict[str, Any],
        test: dict[str, Any] | None,
        teacher: Job | None = None,
        given: Path | None = None,
    ) -> Job:
        """A new job, or an existing one that trains the same, if there is nothing to test."""
        job = Job(variant, name, deepcopy(options) | {'manual_seed': SEED}, self.root, test, teacher, given=given)
        job.locate(self.found, self.known)
        same = self.made.setdefault(job.digest, [])
        if same and test is None:
            return same[0]
        if same and given is None:
            job.name, job.twin = same[0].name, same[0]
            job.locate(self.found, self.known)
        same.append(job)
        return job

    def plan(self) -> str:
        """See ``Pipeline.plan``."""
        lines = [super().plan()] if self.jobs else []
        for cell in self.cells:
            if cell.skipped:
                lines.append(f'not run: {cell.table}, {cell.row} x{cell.scale}: {cell.skipped}')
        if absent := dict.fromkeys(name for table in self.tables for name in table.absent_sets):
            lines.append(f'test sets that are not there and are left out: {", ".join(absent)}')
        return '\n'.join(lines)

    def pages(self, results: Mapping[Job, Result]) -> dict[str, str]:
        """See ``Pipeline.pages``; an option file for ``mipkd test`` of each table and scale is beside it."""
        for cell in self.cells:
            cell.result = results.get(cell.job) if cell.job else None
        command = shlex.join(self.words(self.root))
        files = {'table.csv': csv_text(self.tables), 'report.md': page_text(self.tables, command)}
        return together(self.tables) | files

    def others(self, results: Mapping[Job, Result]) -> list[Result]:
        """See ``Pipeline.others``: with --only, the other cells'."""
        here = {result.digest for result in results.values()}
        return [result for result in self.kept if result.digest not in here]


def _test_options(table: PaperTable, scale: int, root: Path) -> tuple[dict[str, Any], list[str]]:
    """The checked options of a table's test, without networks, and the sets that are not there."""
    options = read_options(table.test_file)
    force_options(options, [f'scale={scale}'])
    options.data.setdefault('val', {})['self_ensemble'] = False
    try:
        opt = checked_test(options)
    except OptionError as error:
        raise OptionError('', f'{table.file}: test: {error}') from None
    phases = {own['name']: phase for phase, own in opt['datasets'].items()}
    names = table.opt['sets'] or list(phases)
    if unknown := set(names) - phases.keys():
        raise OptionError('', f'{table.file}: sets: {table.test_file} has no test set {", ".join(sorted(unknown))}.')
    sets = {name: opt['datasets'][phases[name]] for name in names}
    absent = [name for name in phases if name in sets and not _is_there(sets[name], root)]
    if len(absent) == len(sets):
        folder = root / sets[absent[0]]['dataroot_gt']
        raise OptionError('', f'{table.test_file}: none of the test sets is there, such as {folder}; prepare one.')
    opt['datasets'] = {phases[name]: own for name, own in sets.items() if name not in absent}
    return opt, absent


def _is_there(dataset: Mapping[str, Any], root: Path) -> bool:
    return all((root / Path(dataset[name]).expanduser()).exists() for name in ('dataroot_gt', 'dataroot_lq'))
