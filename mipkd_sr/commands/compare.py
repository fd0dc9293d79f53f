"""Train variants of a recipe over several seeds, and compare them on one page.

mipkd compare experiments/studies/mipkd/study.yml --plan     # what there is to do, and how long it will take here
mipkd compare experiments/studies/mipkd/study.yml --jobs 2   # do it: two runs at a time
mipkd compare experiments/studies/mipkd/study.yml --commands # a command a run, for a cluster: see docs/running.md
mipkd compare experiments/studies/mipkd/study.yml --report   # write the page again from what there is

A study file names the variants, each an option file and changes to it (entries of --force_yml):

    recipe: recipe.yml            # beside the study file, or a shipped recipe's name; a variant may name another
    seeds: [0, 1, 2]
    baseline: logits KD           # differences are to this variant; the first if absent
    report_at: [1000, 2000]       # steps that the page's tables show, besides the last
    test: test.yml                # an option file for testing: its sets are measured once, at the end of each run
    variants:
      logits KD: {recipe: kd.yml}
      logits KD, longer: {recipe: kd.yml, steps: 2.25}   # 2.25 times the steps, the learning rate's schedule with them
      MiPKD, one position: {force: ['train:mipkd_opt:positions=1']}

A run is told by what it computes: one that has finished is not run again, whatever it is called; an interrupted one
goes on where it stopped. The page is written again after each run, beside the study file (in a folder of the file's
name if that is not study.yml): report.md, results.json, table.csv, curves.png and curves.pdf. Finished runs that
results.json has count as well, so that a study can be continued where their folders are not, as on another machine.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mipkd_sr.commands.command_line import add_import_argument, at_least, interrupted_at_once

if TYPE_CHECKING:
    from mipkd_sr.studies.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('study', type=Path, help='the study file')
    add_pipeline_arguments(
        parser,
        'folder for experiments, results and relative paths; by default the folder that holds the experiments/ or '
        "options/ folder which the study is in, or the study's own",
    )


def add_pipeline_arguments(parser: argparse.ArgumentParser, root: str) -> None:
    """The arguments of studies and tables; ``root`` is the help of ``--root``."""
    parser.add_argument('--jobs', type=at_least(1), default=1, help='runs at a time on CPUs')
    parser.add_argument('--devices', nargs='+', default=[], help='GPUs to use, a run at a time on each: 0 1 2')
    parser.add_argument('--root', type=Path, help=root)
    parser.add_argument('--run', nargs='+', default=[], metavar='NAME', help='do these runs alone, and write no page')
    add_import_argument(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--plan', action='store_true', help='print what is to be done, and how long it takes; then stop')
    what.add_argument('--commands', action='store_true', help='print a command for each run to be done, and stop')
    what.add_argument('--test', action='store_true', help='test what has finished training, and train nothing')
    what.add_argument('--report', action='store_true', help='write the page from what there is, and stop')


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.studies.study import Study  # starts PyTorch

    return follow(Study(args.study, args.root), args)


def follow(pipeline: 'Pipeline', args: argparse.Namespace) -> int:
    """Do what the arguments ask for; returns the exit code."""
    pipeline.test_only = args.test
    pipeline.devices = args.devices or [''] * args.jobs
    pipeline.choose(args.run)
    if args.report:
        pipeline.before_writing()
        print(f'written: {pipeline.write()}')
        return 0
    if args.commands:
        print(*pipeline.commands(), sep='\n')
        return 0
    if not args.test:
        with interrupted_at_once():
            print(pipeline.plan(), flush=True)
    return 0 if args.plan else pipeline.execute()
