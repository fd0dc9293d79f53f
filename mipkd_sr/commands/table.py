"""Make a paper's table: train what is absent, test it as the paper does, and set it beside the published values.

mipkd table mipkd_table2 --plan                    # what there is to do
mipkd table mipkd_table2 --jobs 2                  # do it; interrupted, the same command goes on
mipkd table mipkd_table2 --only KD x4              # one cell alone
mipkd table mipkd_table2 mipkd_table6 dukd_table4 --miniature --out page   # small networks, few steps: no GPU needed
mipkd table my_table.yml --report                  # write the page again from what there is
mipkd table mipkd_table1 mipkd_table5              # tables of costs: nothing is trained; measured here, now

A table is one short file: rows, scales and what they share (options/tables). Teachers are trained plainly where their
weights are not in experiments/pretrained_models. A run is told by what it computes: what has finished under whatever
name is not trained again. Test sets that are not there are left out, and said; so is a cell that needs a file which is
not there. The page (report.md, with table.csv and every image's values in results.json) is written after each run, to
results/NAME by default. Beside it lies an option file for each table and scale, such as mipkd_table2_x4.yml: with it
`mipkd test` measures how close all rows are to the teacher. The crops that the papers show are drawn in the end, where
their images are there. `--miniature` makes every cell
as small as options/tables/miniature.yml says.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mipkd_sr.commands.command_line import add_import_argument
from mipkd_sr.options.recipes import RECIPES, TABLES, find_root, recipe_file
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.runtime.files import atomic_write

if TYPE_CHECKING:
    from mipkd_sr.studies.execute import Job
    from mipkd_sr.studies.paper_tables import Cell, PaperTable
    from mipkd_sr.studies.table_runs import TableRuns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument('table', nargs='+', help='table files, or names of shipped ones')
    parser.add_argument('--only', nargs='+', default=[], metavar='ROW|xN', help='rows and scales to do; all by default')
    parser.add_argument('--miniature', action='store_true', help='small networks, few steps; see above')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time on CPUs')
    parser.add_argument('--devices', nargs='+', default=[], help='GPUs to use, a run at a time on each: 0 1 2')
    parser.add_argument(
        '--root', type=Path, help='folder for datasets, experiments and results; see mipkd train --help'
    )
    parser.add_argument('--out', type=Path, help='folder of the page; results/NAME by default')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each row of a table of costs')
    add_import_argument(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--plan', action='store_true', help='print what there is to do, and stop')
    what.add_argument('--report', action='store_true', help='write the page from what there is, and stop')


def table_file(name: str) -> Path:
    """The file that a name or a path on the command line means.

    Raises:
        OptionError: If there is none.
    """
    if Path(name).is_file():
        return Path(name).absolute()
    if file := recipe_file(f'{TABLES}/{Path(name).name}'):
        return file
    known = sorted(file.stem for file in (RECIPES / TABLES).glob('*.yml') if file.stem != 'miniature')
    raise OptionError('table', f"there is no file or shipped table '{name}'; there are: {', '.join(known)}.")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if args.jobs < 1:
        raise OptionError('--jobs', 'must be at least 1.')
    files = [table_file(name) for name in args.table]

    from mipkd_sr.studies.paper_tables import chosen_cells, read_table  # starts PyTorch
    from mipkd_sr.studies.table_page import write_table_page
    from mipkd_sr.studies.table_runs import plan_tables
    from mipkd_sr.studies.together import write_together

    tables = [read_table(file, args.miniature) for file in files]
    root = args.root.absolute() if args.root else find_root(args.table[0])
    cells = chosen_cells(tables, args.only)
    name = '_'.join(table.name for table in tables) + ('_miniature' if args.miniature else '')
    folder = args.out or root / 'results' / name
    if costs := [table for table in tables if table.measure]:
        _measure(costs, cells, args, folder)
        tables = [table for table in tables if not table.measure]
        if not tables:
            return 0
    runs = plan_tables(tables, cells, root, args.miniature)

    def write() -> Path:
        page = write_table_page(tables, runs, folder, _command(args, tables), args.miniature)
        write_together(tables, runs, folder)
        return page

    if not args.report:
        print(describe(runs), flush=True)
    if args.plan:
        return 0
    if not args.report:
        code = _execute(runs, args, write)
        if code:
            return code
    print(f'written: {write()}')
    draw_crops(write_together(tables, runs, folder), root)
    return 0


def draw_crops(files: Sequence[Path], root: Path) -> None:
    """Draw the pictures that tests' option files ask for, beside them, of the images that are there."""
    import torch

    from mipkd_sr.archs.loading import load_trained
    from mipkd_sr.data import build_dataset
    from mipkd_sr.evaluation.tested import draw_figure, figures_of, network_entries
    from mipkd_sr.runs.loading import leave_out_missing, load_options, missing_paths

    for file in files:
        options = load_options(file, False, root)
        leave_out_missing(options.data)
        if missing_paths(options.data):
            continue
        opt, device = options.testing, torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        datasets = {dataset['name']: build_dataset(opt, phase) for phase, dataset in opt['datasets'].items()}
        pictures = figures_of(opt, datasets)
        entries = network_entries(opt) if pictures else {}
        nets = {name: load_trained(entry, opt['scale']).to(device) for name, entry in entries.items()}
        for image, set_name, index in pictures:
            stem = file.with_name(f'{file.stem}_{image}')
            print(*draw_figure(nets, (), set_name, datasets[set_name][index], opt, stem))


def _measure(tables: 'list[PaperTable]', cells: 'list[Cell]', args: argparse.Namespace, folder: Path) -> None:
    """Measure the tables of costs, print them, and write them to ``folder``/costs.md."""
    from mipkd_sr.studies.cost_tables import cost_section

    if args.repeats < 1:
        raise OptionError('--repeats', 'must be at least 1.')
    wanted = {table.name: [cell for cell in cells if cell.table == table.name] for table in tables}
    if args.plan or args.report:
        for name, own in wanted.items():
            print(f'{name}: to be measured here: {", ".join(cell.row for cell in own)}')
        return
    sections = [cost_section(table, wanted[table.name], args.repeats) for table in tables if wanted[table.name]]
    print('\n\n'.join(sections))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / 'costs.md') as part:
        part.write_text('\n\n'.join(['# Tables of costs', *sections]) + '\n', encoding='utf-8')
    print(f'written: {folder / "costs.md"}')


def describe(runs: 'TableRuns') -> str:
    """What there is to do, for people."""
    from mipkd_sr.studies.table_runs import stages

    teachers, others = stages(runs)
    lines = [f'{len(runs.runs)} cells in {runs.root / "experiments"}']
    lines.append(f'to be done: {len(teachers)} teachers, {len(others)} others')
    lines += [f'  {job.run_folder.name}{"" if job.train else " (its test)"}' for job in (*teachers, *others)]
    lines += [f'note: {run_folder.note}' for run_folder, _ in runs.run_folders if run_folder.note]
    for run in runs.runs:
        if run.skipped:
            lines.append(f'not run: {run.cell.table}, {run.cell.row} x{run.cell.scale}: {run.skipped}')
    absent = dict.fromkeys(name for names in runs.absent_sets.values() for name in names)
    lines += [f'test sets that are not there and are left out: {", ".join(absent)}'] if absent else []
    return '\n'.join(lines)


def _execute(runs: 'TableRuns', args: argparse.Namespace, write: Callable[[], Path]) -> int:
    from mipkd_sr.studies.table_runs import execute_tables, stages

    total, ended = sum(map(len, stages(runs))), 0

    def on_end(job: 'Job', failure: str | None) -> None:
        nonlocal ended
        ended += 1
        print(f'[{ended}/{total}] {failure or "done: " + job.run_folder.name}', flush=True)
        write()

    outcome = execute_tables(runs, args.jobs, args.devices, lambda: None, on_end)
    if outcome.stopped_by:
        print(f'written: {write()}', flush=True)
        name = signal.Signals(outcome.stopped_by).name
        print(f'stopped by {name}; run this again to go on', file=sys.stderr, flush=True)
        return 128 + outcome.stopped_by
    if outcome.failed:
        write()
        first = outcome.failed[0].rstrip('.')
        raise RunError(f'{len(outcome.failed)} runs failed, the first: {first}; run this again to go on.')
    return 0


def _command(args: argparse.Namespace, tables: 'list[PaperTable]') -> str:
    parts = ['mipkd', 'table', *(table.name for table in tables)]
    parts += ['--only', *args.only] if args.only else []
    parts += ['--import', *args.imports] if args.imports else []
    return shlex.join(parts + (['--miniature'] if args.miniature else []))
