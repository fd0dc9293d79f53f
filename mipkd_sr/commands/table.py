"""Make a paper's table: train what is absent, test it as the paper does, and set it beside the published values.

mipkd table mipkd_table2 --plan                    # what there is to do
mipkd table mipkd_table2 --jobs 2                  # do it; interrupted, the same command goes on
mipkd table mipkd_table2 --only KD x4              # one cell alone
mipkd table mipkd_table2_miniature                 # small networks, few steps: no GPU needed
mipkd table my_table.yml --report                  # write the page again from what there is

A table is one short file: rows, scales and what they share (options/tables). Teachers are trained plainly where their
weights are not in experiments/pretrained_models. A run is told by what it computes: what has finished under whatever
name is not trained again. Test sets that are not there are left out, and said; so is a cell that needs a file which is
not there. The page (report.md, with table.csv and every image's values in results.json) is written after each run, to
results/NAME by default. Beside it lies an option file for each table and scale, such as mipkd_table2_x4.yml: with it
`mipkd test` measures how close all rows are to the teacher. The crops that the papers show are drawn in the end, where
their images are there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mipkd_sr.commands.compare import add_pipeline_arguments, follow
from mipkd_sr.options.recipes import RECIPES, TABLES, find_root, recipe_file
from mipkd_sr.runtime.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('table', nargs='+', help='table files, or names of shipped ones')
    parser.add_argument('--only', nargs='+', default=[], metavar='ROW|xN', help='rows and scales to do; all by default')
    parser.add_argument('--out', type=Path, help='folder of the page; results/NAME by default')
    add_pipeline_arguments(parser, 'folder for datasets, experiments and results; see mipkd train --help')


def table_file(name: str) -> Path:
    """The file that a name or a path on the command line means."""
    if Path(name).is_file():
        return Path(name).absolute()
    if file := recipe_file(f'{TABLES}/{Path(name).name}'):
        return file
    known = sorted(file.stem for file in (RECIPES / TABLES).glob('*.yml'))
    raise OptionError('table', f"there is no file or shipped table '{name}'; there are: {', '.join(known)}.")


def run(args: argparse.Namespace) -> int:
    files = [table_file(name) for name in args.table]

    from mipkd_sr.studies.paper_tables import choose_cells, read_table  # starts PyTorch
    from mipkd_sr.studies.table_runs import Tables

    tables = [read_table(file) for file in files]
    choose_cells(tables, args.only)
    root = args.root.absolute() if args.root else find_root(args.table[0])
    folder = (args.out or root / 'results' / '_'.join(table.name for table in tables)).absolute()
    command: list[str | Path] = ['mipkd', 'table']
    command += [file if RECIPES not in file.parents else file.stem for file in files]
    command += ['--root', root] if args.root else []
    command += ['--out', folder] if args.out else []
    command += ['--only', *args.only] if args.only else []
    command += ['--import', *args.imports] if args.imports else []
    code = follow(Tables(tables, root, folder, command), args)
    if not (code or args.plan or args.commands or args.run):
        files = [folder / f'{table.name}_x{scale}.yml' for table in tables for scale in table.opt['scales']]
        draw_crops([file for file in files if file.is_file()], root)
    return code


def draw_crops(files: Sequence[Path], root: Path) -> None:
    """Draw the pictures that tests' option files ask for, beside them, of the images that are there."""
    from mipkd_sr.archs.loading import load_trained
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.data import build_dataset
    from mipkd_sr.evaluation.tested import draw_figure, figures_of, network_entries
    from mipkd_sr.runs.run_options import leave_out_missing, load_options, missing_paths

    for file in files:
        options = load_options(file, False, root)
        leave_out_missing(options.data)
        if missing_paths(options.data):
            continue
        opt, device = options.testing, this_device()
        datasets = {dataset['name']: build_dataset(opt, phase) for phase, dataset in opt['datasets'].items()}
        pictures = figures_of(opt, datasets)
        entries = network_entries(opt) if pictures else {}
        nets = {name: load_trained(entry, opt['scale']).to(device) for name, entry in entries.items()}
        for image, set_name, index in pictures:
            stem = file.with_name(f'{file.stem}_{image}')
            print(*draw_figure(nets, (), set_name, datasets[set_name][index], opt, stem))
