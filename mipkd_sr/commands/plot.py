"""Draw a paper's figures from what runs and tests have written; each as PNG and PDF, one column wide.

mipkd plot parameters results/demo     # quality against parameters, from a test's results
mipkd plot agreement results/demo      # how close to the teacher; needs the test's `teacher`
mipkd plot gains results/dukd_figure4_x4   # gain over plain training against compression: rows "SIZE, METHOD"
mipkd plot curves demo_kd demo_mipkd   # validation over the steps of several runs, by name or by folder
mipkd plot gradients demo_mipkd        # each loss's gradient on the student; train with logger:gradients
mipkd plot bars results/mipkd_table3_mipkd_table2   # the rows of the papers' tables, from a page of mipkd table

The crops of all networks side by side are drawn by the test itself: see `figure` in the recipe test/demo.
"""

import argparse
from pathlib import Path

from mipkd_sr.runtime.errors import OptionError

OF_RUNS = ('curves', 'gradients')
"""Figures that are drawn from runs; the others are from a test's results."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(dest='figure', metavar='FIGURE', required=True)
    for name, what in (
        ('parameters', 'quality against parameters'),
        ('agreement', 'how close to the teacher'),
        ('gains', 'what a method gains, against how far the student is compressed'),
        ('curves', 'validation over the steps'),
        ('gradients', "each loss's gradient on the student, over a run's steps"),
        ('bars', "the rows of the papers' tables, ours and published"),
    ):
        figure = figures.add_parser(name, help=what)
        if name in OF_RUNS:
            figure.add_argument('runs', nargs='*', metavar='RUN', help='by name or by folder')
            figure.add_argument('--run', nargs='+', default=[], dest='more_runs', metavar='RUN', help='the same')
        else:
            figure.add_argument('folder', type=Path, help="folder of a test's results")
        figure.add_argument('--metric', default='psnr', help='what is drawn')
        if name == 'bars':
            figure.add_argument('--set', default='Urban100', help='test set')
        figure.add_argument('--out', type=Path, help='file without ending; by default beside the results')


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.evaluation import plots
    from mipkd_sr.runs.run import find_run

    if args.figure in OF_RUNS:
        runs = [find_run(name) for name in (*args.runs, *args.more_runs)]
        if not runs:
            raise OptionError('--run', 'is missing; name the runs to draw.')
        if args.figure == 'curves':
            histories = {run.folder: run.validations_file for run in runs}
            files = plots.plot_curves(histories, args.metric, args.out or Path('curves'))
        elif len(runs) > 1:
            raise OptionError('--run', f'names {len(runs)} runs; gradients are drawn of one.')
        else:
            files = plots.plot_gradients(runs[0].folder, args.out or runs[0].folder / 'gradients')
    else:
        taken = {'agreement': (), 'bars': ('metric', 'set')}.get(args.figure, ('metric',))
        more = [getattr(args, name) for name in taken]
        files = getattr(plots, f'plot_{args.figure}')(args.folder, *more, args.out or args.folder / args.figure)
    print(' '.join(map(str, files)))
    return 0
