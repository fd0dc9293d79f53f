"""The runs behind the papers' tables: teachers first where their weights are not there, then the cells; then tests."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.options.checking import check
from mipkd_sr.options.keys import TEST
from mipkd_sr.options.reading import force_options, read_options
from mipkd_sr.runs.identity import digest
from mipkd_sr.runs.loading import missing_paths
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.studies.execute import Executor, Job, Outcome, jobs_of
from mipkd_sr.studies.folders import RunFolder, TestFolder, completed_options, locate, locate_test, options_of_test
from mipkd_sr.studies.paper_tables import Cell, PaperTable
from mipkd_sr.studies.plan import PlannedRun, Study, Variant, slug

SEED = 0
"""The papers report one run of each cell."""


@dataclass
class CellRun:
    """A cell on this machine.

    Attributes:
        cell: The cell.
        run_folder: Its run; None where the weights were there already, or where it cannot be run.
        test: Its test; None where it cannot be run.
        skipped: Why it cannot be run; empty if it can.
    """

    cell: Cell
    run_folder: RunFolder | None
    test: TestFolder | None
    skipped: str = ''

    def values(self) -> dict[str, dict[str, float]]:
        """For each test set the means over images; empty before the end."""
        if self.test is None or not (self.run_folder is None or self.run_folder.is_finished()):
            return {}
        return {name: mean_metrics(images) for name, images in self.test.images().items()}


@dataclass
class TableRuns:
    """The cells of some tables on this machine, and what they need.

    Attributes:
        root: Folder for experiments, results and relative paths.
        prefix: What the runs' names begin with.
        runs: The cells.
        absent_sets: Test sets that are not there and are left out, by table.
        teachers: The runs of the teachers whose weights are not there, by their options' digest.
    """

    root: Path
    prefix: str = ''
    runs: list[CellRun] = field(default_factory=list)
    absent_sets: dict[str, list[str]] = field(default_factory=dict)
    teachers: dict[str, RunFolder] = field(default_factory=dict)

    @property
    def run_folders(self) -> list[tuple[RunFolder, TestFolder | None]]:
        """Every run, the teachers' first, each with its test."""
        own = {run.run_folder.name: (run.run_folder, run.test) for run in self.runs if run.run_folder is not None}
        needed = {run_folder.name: (run_folder, None) for run_folder in self.teachers.values()}
        return list((needed | {name: own[name] for name in needed if name in own} | own).values())


def plan_tables(tables: Sequence[PaperTable], cells: Sequence[Cell], root: Path, miniature: bool = False) -> TableRuns:
    """Find out what is there and what is to be done. Nothing is written.

    Args:
        tables: The tables.
        cells: The cells of theirs that are wanted.
        root: Folder for experiments, results and relative paths.
        miniature: Whether the networks are small: then teachers are always trained here.

    Raises:
        OptionError: If an option file for testing is wrong, or none of its test sets is there.
    """
    runs = TableRuns(root, 'miniature_' if miniature else '')
    for table in tables:
        for scale in table.scales:
            wanted = [cell for cell in cells if (cell.table, cell.scale) == (table.name, scale)]
            if not wanted:
                continue
            test, absent = _test_options(table, scale, root)
            runs.absent_sets[table.name] = absent
            study = Study(table.file, root, '', root, {}, (SEED,), '', (), test, table.test_file)
            runs.runs += [_cell_run(cell, study, runs, miniature) for cell in wanted]
    return runs


def _test_options(table: PaperTable, scale: int, root: Path) -> tuple[dict[str, Any], list[str]]:
    """The checked options of a table's test, without networks, and the sets that are not there."""
    options = read_options(table.test_file)
    force_options(options, [f'scale={scale}'])
    opt = options.data
    for name in ('networks', 'network_g', 'published', 'figure', 'teacher'):
        opt.pop(name, None)
    opt.setdefault('val', {})['self_ensemble'] = False
    try:
        check(opt, TEST)
    except OptionError as error:
        raise OptionError('', f'{table.file}: test: {options.explain(error)}') from None
    wanted = {phase: own for phase, own in opt['datasets'].items() if table.sets is None or own['name'] in table.sets}
    if unknown := set(table.sets or ()) - {own['name'] for own in wanted.values()}:
        raise OptionError('', f'{table.file}: sets: {table.test_file} has no test set {", ".join(sorted(unknown))}.')
    there = {phase: own for phase, own in wanted.items() if _is_there(own, root)}
    absent = [own['name'] for phase, own in wanted.items() if phase not in there]
    if not there:
        folder = next(iter(wanted.values()))['dataroot_gt']
        raise OptionError(
            '', f'{table.test_file}: none of the test sets is there, such as {root / folder}; prepare one.'
        )
    order = {name: number for number, name in enumerate(table.sets or ())}
    opt['datasets'] = dict(sorted(there.items(), key=lambda item: order.get(item[1]['name'], 0)))
    return opt, absent


def _is_there(dataset: Mapping[str, Any], root: Path) -> bool:
    return all((root / Path(dataset[name]).expanduser()).exists() for name in ('dataroot_gt', 'dataroot_lq'))


def _cell_run(cell: Cell, study: Study, runs: TableRuns, miniature: bool) -> CellRun:
    """Locate one cell; its teacher is added to ``runs`` where it has to be trained."""
    options = deepcopy(cell.options)
    if cell.teacher_file is not None and cell.teacher_options is not None:
        given = runs.root / Path(cell.teacher_file).expanduser()
        if given.is_file() and not miniature:
            if cell.is_teacher:
                return CellRun(cell, None, _test_of_file(cell, given, study))
        else:
            teacher = _teacher(cell.teacher_options, study, runs)
            if cell.is_teacher:
                return CellRun(cell, teacher, locate_test(study, teacher))
            options['path']['pretrain_network_t'] = str(teacher.weights.relative_to(runs.root))
    name = f'{runs.prefix}{slug(cell.table)}_{slug(cell.row)}_x{cell.scale}'
    run_folder = _locate(options, name, cell.row, study)
    if why := _why_not(run_folder, runs):
        return CellRun(cell, None, None, why)
    return CellRun(cell, run_folder, locate_test(study, run_folder))


def _teacher(options: Mapping[str, Any], study: Study, runs: TableRuns) -> RunFolder:
    own = deepcopy(dict(options))
    own['name'] = f'{runs.prefix}{own["name"]}'
    identity = digest(own | {'manual_seed': SEED}, runs.root)
    if identity not in runs.teachers:
        runs.teachers[identity] = _locate(own, own['name'], 'teacher', study)
    return runs.teachers[identity]


def _locate(options: dict[str, Any], name: str, row: str, study: Study) -> RunFolder:
    run = PlannedRun(
        Variant(row, study.file, (), 1.0, options), SEED, digest(options | {'manual_seed': SEED}, study.root), name
    )
    return locate(study, [run])[0]


def _why_not(run_folder: RunFolder, runs: TableRuns) -> str:
    """What a run needs and is not there; weights that another run will write are no such thing."""
    ours = {run_folder.weights for run_folder in runs.teachers.values()}
    missing = [
        error
        for error in missing_paths(completed_options(run_folder).data)
        if not any(str(weights) in str(error) for weights in ours)
    ]
    return str(missing[0]).replace(f'{runs.root}/', '') if missing else ''


def _test_of_file(cell: Cell, weights: Path, study: Study) -> TestFolder:
    """The test of weights that were there already."""
    opt = options_of_test(study.test or {}, cell.options, str(weights))
    name = f'{weights.stem}_{digest(opt, study.root)[:8]}'
    return TestFolder(name, opt | {'name': name}, study.root / 'results' / name, weights)


def execute_tables(
    runs: TableRuns,
    at_a_time: int,
    devices: Sequence[str],
    on_progress: Callable[[], None],
    on_end: Callable[[Job, str | None], None],
) -> Outcome:
    """Do what is to be done: teachers, then all else. What is interrupted is resumed the next time."""
    outcome = Outcome()
    for jobs in stages(runs):
        if jobs and not outcome.stopped_by and not outcome.failed:
            outcome = Executor(jobs, at_a_time, devices, on_progress, on_end).run()
    return outcome


def stages(runs: TableRuns) -> tuple[list[Job], list[Job]]:
    """What is to be done first, teachers, and what after them."""
    teachers = {run_folder.name for run_folder in runs.teachers.values()}
    first = jobs_of([entry for entry in runs.run_folders if entry[0].name in teachers])
    later = jobs_of([entry for entry in runs.run_folders if entry[0].name not in teachers])
    for run in runs.runs:
        if run.run_folder is None and run.test is not None and not run.test.images():
            later.append(Job(_folder_of_file(run, runs), run.test, train=False))
    return first, later


def _folder_of_file(run: CellRun, runs: TableRuns) -> RunFolder:
    """Where the log of a test goes whose weights no run of ours has made."""
    assert run.test is not None
    variant = Variant(run.cell.row, runs.root, (), 1.0, run.cell.options)
    return RunFolder(PlannedRun(variant, SEED, '', run.test.name), run.test.name, runs.root)
