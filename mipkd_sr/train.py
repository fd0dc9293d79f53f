"""Train a student: ``mipkd train -opt FILE``, ``python mipkd_sr/train.py -opt FILE``, or under torchrun.

Reads and checks the options, builds data sets and model, and only then creates folders and trains.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mipkd_sr.commands.command_line import (
    GO_ON,
    TRAINING,
    add_run_arguments,
    explain_os_error,
    import_packages,
    run_command,
    run_program,
)

if __name__ == '__main__':  # before the imports below, so that a Ctrl-C in them is no traceback
    sys.exit(run_program('mipkd_sr.train', TRAINING, add_run_arguments))

import mipkd_sr.register  # isort: skip  # noqa: F401  (before anything imports basicsr, which it repairs)

import torch

from mipkd_sr import __version__
from mipkd_sr.commands.dry_run import describe_training
from mipkd_sr.data import build_dataset, not_looked_at
from mipkd_sr.data.stream import single_images
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.models import build_model
from mipkd_sr.models.objectives import check_data
from mipkd_sr.options.reading import Options
from mipkd_sr.runs.options_of_state import changes
from mipkd_sr.runs.run_options import load_options, missing_paths
from mipkd_sr.runs.start import Start, experiment_folder, find_start, resume
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.log import run_log
from mipkd_sr.runtime.ranks import failing_together
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.training.loop import Progress, Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see ``run_command``."""
    return run_program('mipkd_sr.train', TRAINING, add_run_arguments, argv)


def start(args: argparse.Namespace) -> int:
    """Train, or, with ``--dry_run``, say what would be done; returns the exit code."""
    try:
        return run_command(follow, args, GO_ON)
    finally:
        distributed.stop()  # when it has been said what ended the run, as the others may not answer any more


def follow(args: argparse.Namespace) -> int:
    """Do what the arguments ask for."""
    import_packages(args)
    options = load_options(args.opt, True, args.root, args.force_yml, args.debug)
    with options.explaining(), distributed.in_touch(options.training):
        distributed.start(args.launcher, options.training)
        if args.dry_run:
            return describe_training(options)
        restarted = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0  # by torchrun, after a process failed
        return run(options, args.auto_resume or restarted, args.unchanged)


def run(options: Options, auto_resume: bool, unchanged: bool = False) -> int:
    """Build everything, create the folders, and train."""
    opt = options.training
    if missing := missing_paths(options.data):
        raise missing[0]
    torch.backends.cudnn.benchmark = True
    seed_everything(opt['manual_seed'])
    sets = {phase: build_dataset(opt, phase) for phase in opt['datasets']}
    train_set, val_loaders = sets['train'], [single_images(one) for phase, one in sets.items() if phase != 'train']
    model = build_model(opt)
    check_data(model, train_set)
    done = Progress()
    if start := find_start(opt, auto_resume):
        resume(model, start)
        done = Progress(start.state['iter'], start.state['samples'])
    with ExitStack() as stack:
        notes: list[str] = []
        with failing_together():  # and no rank writes before the folders are there
            if opt['rank'] == 0:
                notes = stack.enter_context(claim_folder(options, start, auto_resume, unchanged))
        logger = stack.enter_context(run_log(opt['path']['log'], f'train_{opt["name"]}', opt['rank']))
        logger.info(f'mipkd_sr {__version__}, torch {torch.__version__}; root: {opt["root_path"]}')
        logger.info(
            f'{opt["world_size"]} process(es) on {model.device}, training {count_parameters(model.net_g):,} parameters'
        )
        if not opt['dist'] and opt['num_gpu'] and torch.cuda.device_count() > 1:
            count = torch.cuda.device_count()
            logger.warning(
                f'1 of {count} GPUs is used; for all of them: torchrun --nproc_per_node={count} ... --launcher pytorch'
            )
        if start:
            logger.info(f'Going on from {start.file}, iteration {done.iteration:,}')
            for change in changes(start.state, opt):
                logger.warning(change)
        for note in notes:
            logger.warning(note)
        for note in not_looked_at(opt):
            logger.info(note)
        del start
        Trainer(model, opt, train_set, val_loaders, done).train()
        logger.info(f'Done: {opt["path"]["models"]}/net_g_latest.pth')
    return 0


@contextmanager
def claim_folder(
    options: Options, start: Start | None, auto_resume: bool, unchanged: bool = False
) -> Iterator[list[str]]:
    """``experiment_folder``, whose every error is one of the options."""
    with ExitStack() as stack:
        try:
            folder = experiment_folder(options.data, options.file.name, start, auto_resume, unchanged)
            notes = stack.enter_context(folder)
        except OSError as error:
            raise OptionError('name', f'{explain_os_error(error, GO_ON)} Or give another folder with --root.') from None
        yield notes
