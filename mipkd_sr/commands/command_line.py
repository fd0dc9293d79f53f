"""The command line that training and testing share."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from basicsr.utils import get_time_str

from mipkd_sr.options.reading import Options
from mipkd_sr.runtime.errors import OptionError, RunError

EXIT_BAD_OPTIONS = 2
"""Something that the user gave is wrong."""
EXIT_CANNOT_GO_ON = 4
"""A run had to stop: a full disk, an image that cannot be read, numbers that are not finite."""
EXIT_MISSING_DATA = 3
"""A dry run found everything right except that data or checkpoints are not there."""


def parse_arguments(description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """BasicSR's flags, and ``--root`` and ``--dry_run``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    parser.add_argument(
        '--auto_resume', action='store_true', help='go on from the last training state, if there is one'
    )
    parser.add_argument(
        '--debug', action='store_true', help="a short look: logs every step, under the name 'debug_...'"
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)  # old launchers'
    parser.add_argument(
        '--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='change options: train:optim_g:lr=1e-4'
    )
    parser.add_argument(
        '--root',
        help='folder for experiments, results and relative paths; by default the folder that holds the option '
        "file's options/ folder, or the option file's own",
    )
    parser.add_argument('--dry_run', action='store_true', help='check everything, print what would run, and stop')
    return parser.parse_args(argv)


def fail(message: str, exit_code: int = EXIT_BAD_OPTIONS) -> int:
    """Print ``message``, and return the exit code.

    What is wrong with the options every process finds alike, and the first one says; other errors may be one's own.
    """
    if exit_code != EXIT_BAD_OPTIONS or os.environ.get('RANK', '0') == '0':
        print(f'error: {message}', file=sys.stderr, flush=True)
    return exit_code


def report(error: OptionError | RunError | OSError, options: Options | None) -> int:
    """Print what ended a command, in one sentence, and return the exit code.

    Args:
        error: What was raised.
        options: The options, which tell in which file a wrong one stands; None if they could not be read.
    """
    if isinstance(error, OptionError):
        return fail(options.explain(error) if options else str(error))
    if isinstance(error, RunError):
        return fail(last_sentence(error), EXIT_CANNOT_GO_ON)
    return fail(explain_os_error(error), EXIT_CANNOT_GO_ON)


def explain_os_error(error: OSError) -> str:
    """One sentence for a file that cannot be written or read, or a full disk."""
    where = f'{error.filename}: ' if error.filename else ''
    advice = {
        errno.ENOSPC: 'free some space, and go on with --auto_resume',
        errno.EACCES: 'make it writable',
        errno.EROFS: 'make it writable',
    }.get(error.errno or 0, 'put it right, and go on with --auto_resume')
    return f'{where}{error.strerror or error}; {advice}.'


def last_sentence(error: RunError) -> str:
    """A RunError's own sentence; one from a process that reads data comes with that process's traceback before it."""
    return str(error).strip().splitlines()[-1].rpartition('RunError: ')[2]


def set_aside(folder: Path) -> None:
    """Rename an existing folder as BasicSR does, so that a new run of the same name loses nothing.

    Raises:
        OptionError: If it cannot be renamed.
    """
    if not folder.exists():
        return
    archive = folder.with_name(f'{folder.name}_archived_{get_time_str()}')
    number = 1
    while archive.exists():
        number += 1
        archive = folder.with_name(f'{folder.name}_archived_{get_time_str()}_{number}')
    try:
        folder.rename(archive)
    except OSError as error:
        raise OptionError('name', f'{folder} is in the way and cannot be renamed ({error.strerror}).') from None
    print(f'{folder} is there already; it is now {archive}', flush=True)
