"""Train a student: ``mipkd train -opt FILE``, ``python mipkd_sr/train.py -opt FILE``, or under torchrun.

Reads and checks the options, builds data sets and model, and only then creates folders and trains.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: Python put mipkd_sr/ itself on the path, where its folder above belongs
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import mipkd_sr  # isort: skip  (repairs BasicSR before anything imports it)

import torch
from torch.utils.data import DataLoader, Dataset

from mipkd_sr.commands.command_line import (
    GO_ON,
    TRAINING,
    add_run_arguments,
    explain_os_error,
    new_parser,
    run_command,
    set_aside,
)
from mipkd_sr.commands.dry_run import describe_training
from mipkd_sr.data import build_dataset
from mipkd_sr.data.stream import single_images
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.models import build_model
from mipkd_sr.options.loading import load_options, missing_paths
from mipkd_sr.options.reading import Options, dump_options
from mipkd_sr.options.spelling_out import spell_out
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.checkpoint import load_file, numbered_states
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import remove_parts
from mipkd_sr.runtime.log import run_log
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.training.loop import Progress, Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see ``run_command``."""
    parser = new_parser('mipkd-train', TRAINING)
    add_run_arguments(parser)
    return start(parser.parse_args(argv))


def start(args: argparse.Namespace) -> int:
    """Train, or, with ``--dry_run``, say what would be done; returns the exit code."""
    try:
        return run_command(follow, args, GO_ON)
    finally:
        distributed.stop()  # when it has been said what ended the run, as the others may not answer any more


def follow(args: argparse.Namespace) -> int:
    """Do what the arguments ask for."""
    options = load_options(args.opt, True, args.root, args.force_yml, args.debug)
    with options.explaining():
        distributed.start(args.launcher, options.data)
        if args.dry_run:
            return describe_training(options)
        restarted = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0  # by torchrun, after a process failed
        return run(options, args.auto_resume or restarted)


def build_datasets(opt: dict[str, Any]) -> tuple[Dataset, list[DataLoader]]:
    """The training set, and a loader for each validation set.

    Raises:
        OptionError: If there is no training set, or one cannot be used.
    """
    if 'train' not in opt['datasets']:
        raise OptionError('datasets', "has no entry 'train'.")
    sets = {phase: build_dataset(opt, phase) for phase in opt['datasets']}
    return sets['train'], [single_images(dataset) for phase, dataset in sets.items() if phase != 'train']


def find_training_state(opt: dict[str, Any], auto_resume: bool) -> tuple[Path, dict[str, Any]] | None:
    """The training state to go on from, and its file: the newest whole one with ``--auto_resume``, else as named.

    Raises:
        OptionError: If the options name one that cannot be read.
    """
    for file in numbered_states(opt['path']['training_states']) if auto_resume else []:
        try:
            return file, load_file(file, verify=True)
        except ValueError as error:
            if opt['rank'] == 0:
                print(f'warning: {error}; going back to the training state before it', file=sys.stderr, flush=True)
    if named := opt['path'].get('resume_state'):
        try:
            return Path(named), load_file(named, verify=True)
        except ValueError as error:
            raise OptionError('path:resume_state', f'{error}; give another.') from None
    return None


def run(options: Options, auto_resume: bool) -> int:
    """Build everything, create the folders, and train."""
    opt = options.data
    if missing := missing_paths(opt):
        raise missing[0]
    torch.backends.cudnn.benchmark = True
    seed_everything(opt['manual_seed'])
    train_set, val_loaders = build_datasets(opt)
    model = build_model(opt)
    done = Progress()
    if found := find_training_state(opt, auto_resume):
        state_file, state = found
        try:
            model.resume_training(state)
        except ValueError as error:
            raise OptionError('path:resume_state', f'{state_file}: {error}.') from None
        done = Progress(state['iter'], state['samples'])
        del found, state
    if opt['rank'] == 0:
        make_folders(opt, options.file.name, keep=auto_resume or done.iteration > 0)
    if opt['dist']:
        torch.distributed.barrier()  # no rank writes before the folders are there
    with run_log(opt['path']['log'], f'train_{opt["name"]}', opt['rank']) as logger:
        logger.info(f'mipkd_sr {mipkd_sr.__version__}, torch {torch.__version__}; root: {opt["root_path"]}')
        logger.info(
            f'{opt["world_size"]} process(es) on {model.device}, training {count_parameters(model.net_g):,} parameters'
        )
        if not opt['dist'] and opt['num_gpu'] and torch.cuda.device_count() > 1:
            count = torch.cuda.device_count()
            logger.warning(
                f'1 of {count} GPUs is used; for all of them: torchrun --nproc_per_node={count} ... --launcher pytorch'
            )
        if done.iteration:
            logger.info(f'Going on from {state_file}, iteration {done.iteration:,}')
        Trainer(model, opt, train_set, val_loaders, done).train()
        logger.info(f'Done: {opt["path"]["models"]}/net_g_latest.pth')
    return 0


def make_folders(opt: dict[str, Any], file_name: str, keep: bool) -> None:
    """Create the experiment's folders, and keep the resolved options there. What stood there before is set aside.

    Raises:
        OptionError: If they cannot be created or written to.
    """
    if not keep:
        set_aside(Path(opt['path']['experiments_root']))
        set_aside(Path(opt['root_path'], 'tb_logger', opt['name']))
    root = Path(opt['path']['experiments_root'])
    try:
        for name in ('experiments_root', 'models', 'training_states', 'visualization'):
            Path(opt['path'][name]).mkdir(parents=True, exist_ok=True)
        (root / file_name).write_text(dump_options(spell_out(deepcopy(opt))), encoding='utf-8')
    except OSError as error:
        raise OptionError('name', f'{explain_os_error(error, GO_ON)} Or give another folder with --root.') from None
    for name in ('models', 'training_states', 'experiments_root'):
        remove_parts(Path(opt['path'][name]))


if __name__ == '__main__':
    sys.exit(main())
