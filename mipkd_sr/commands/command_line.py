"""What the commands share: the flags of a run, one way to end, and the exit codes.

Nothing here, nor at the top of any command's file, starts PyTorch: a command imports what it needs as it runs, so that
``--help`` answers at once.
"""

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING

from mipkd_sr.options.recipes import STUDENT_SCALES, STUDENT_SIZES
from mipkd_sr.runtime.errors import (
    BusyError,
    Interrupted,
    OptionError,
    RunError,
    compiler_problem,
    cut,
    printable,
    traced,
)

if TYPE_CHECKING:
    from torch import nn

EXIT_BAD_OPTIONS = 2
"""Something that the user gave is wrong."""
EXIT_MISSING_DATA = 3
"""A dry run found everything right except that data or checkpoints are not there."""
EXIT_CANNOT_GO_ON = 4
"""A command had to stop: a full disk, an image that cannot be read, numbers that are not finite."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; a training run that was stopped by a signal ends with 128 + the signal's number."""
EXIT_NO_READER = 141
"""What read the output has gone away, as ``head`` does."""
MOMENT = 1.0
"""Seconds for a computation to end by itself where Ctrl-C is to end it at once."""

GO_ON = 'go on with --auto_resume'

TRAINING = """Train a super-resolution student.

mipkd train -opt mipkd/edsr_x4 --dry_run     # check everything, print what would run, write nothing
mipkd train -opt mipkd/edsr_x4               # a shipped recipe; `mipkd recipes` lists them
mipkd train -opt my_options.yml --auto_resume --force_yml train:optim_g:lr=1e-4
"""
TESTING = """Test super-resolution networks: one table, and a picture.

mipkd test -opt demo                         # a shipped recipe; `mipkd recipes` lists them
mipkd test -opt benchmarks_x2 --run demo_mipkd   # one run's student, on the file's test sets
mipkd test -opt my_test.yml --force_yml val:self_ensemble=true
"""


def new_parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser that shows ``description`` as it is written, examples and all."""
    return argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """BasicSR's flags, and ``--root`` and ``--dry_run``."""
    parser.add_argument('-opt', required=True, metavar='FILE', help="option file (YAML), or a shipped recipe's name")
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    parser.add_argument(
        '--auto_resume', action='store_true', help='resume from the last training state, if there is one'
    )
    parser.add_argument(
        '--unchanged',
        action='store_true',
        help='resume only if options, weights, images and code of yours are those that the run was trained with',
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
        "file's options/ folder, or the option file's own; for a shipped recipe the current folder",
    )
    parser.add_argument('--dry_run', action='store_true', help='check everything, print what would run, and stop')
    add_import_argument(parser)


def add_test_arguments(parser: argparse.ArgumentParser) -> None:
    """What a test takes: BasicSR's flags, and ``--run``."""
    add_run_arguments(parser)
    parser.add_argument('--run', metavar='RUN', help='test the last student of a run, by its name or folder, alone')


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """``--import``, for a command that reads an option file; see ``import_packages``."""
    parser.add_argument(
        '--import',
        dest='imports',
        nargs='+',
        default=[],
        metavar='PACKAGE',
        help='packages of yours that register networks, losses, data sets or models; as import: in an option file',
    )


def import_packages(args: argparse.Namespace) -> None:
    """Import what ``--import`` names."""
    if getattr(args, 'imports', None):
        from mipkd_sr.options.importing import import_asked_for

        import_asked_for(args.imports)


def add_student_arguments(parser: argparse.ArgumentParser, size: str = '--student') -> None:
    """Which student: one that comes with the package, one's own run's, or a checkpoint and its option file.

    Args:
        parser: Is given the arguments.
        size: The argument's name for the size of a student of the package's.
    """
    parser.add_argument(
        '--scale', type=int, choices=STUDENT_SCALES, help='take the student for this scale that comes with the package'
    )
    parser.add_argument(
        size, dest='student_size', choices=STUDENT_SIZES, default='fast', help='its size; good takes over twice as long'
    )
    parser.add_argument('--run', metavar='RUN', help="take the student of a run of yours, by the run's name or folder")
    parser.add_argument('-opt', metavar='FILE', help='take your own: the option file that has it as network_g')
    parser.add_argument('--weights', help="your own student's checkpoint; EDSR's and RCAN's authors' ones, too")
    add_import_argument(parser)


def student_of(args: argparse.Namespace) -> 'nn.Module':
    """The student that the arguments name."""
    from mipkd_sr.api import load_run, load_student

    own = (args.opt, args.weights)
    if [bool(args.scale), bool(args.run), own != (None, None)].count(True) != 1 or own.count(None) == 1:
        raise OptionError(
            '', 'give --scale 2, 3 or 4 for a student of ours, --run for one of your runs, or -opt and --weights.'
        )
    return load_run(args.run) if args.run else load_student(args.scale or args.weights, args.opt, args.student_size)


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``minimum`` on."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not minimum <= number < 2**31:
            raise argparse.ArgumentTypeError(f'must be at least {minimum}, and no more than 2147483647')
        return number

    return whole_number


def run_command(
    run: Callable[[argparse.Namespace], int], args: argparse.Namespace, again: str = 'run the command again'
) -> int:
    """Run a command; what ends it before its end is one sentence and an exit code.

    ``again`` says how to go on when a file could not be read or written and that has been mended.

    Returns:
        The exit code: ``run``'s own (0 for done, 3 for a dry run with data missing), 2 if something that the user gave
        is wrong, 4 if it cannot go on, 5 if another process is at it, 128 + the signal's number if it was stopped.
    """
    for stream in (sys.stdout, sys.stderr):  # file names may be bytes that are no text
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    if isinstance(sys.stderr, TextIOWrapper):  # a line in one write, as torchrun's processes share it, unbuffered
        sys.stderr.reconfigure(line_buffering=True, write_through=False)
    try:
        code = run(args)
        sys.stdout.flush()  # here, where a reader that has gone away is expected
        return code
    except OptionError as error:
        words = (cut(word) for word in str(error).split(' '))  # one path may be of thousands of characters
        code = error.exit_code if isinstance(error, BusyError) else EXIT_BAD_OPTIONS
        return _fail(cut(' '.join(words), 9000), code)  # it may name many files
    except RunError as error:
        return _fail(cut(last_sentence(error)), EXIT_CANNOT_GO_ON)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        return EXIT_NO_READER
    except OSError as error:
        return _fail(cut(explain_os_error(error, again)), EXIT_CANNOT_GO_ON)
    except Interrupted as stop:
        print(f'{stop}; {GO_ON}', flush=True)
        return stop.exit_code
    except KeyboardInterrupt as stop:
        return _fail('interrupted.', stop.args[0] if stop.args else EXIT_INTERRUPTED)
    except SystemExit as error:  # a user's class has called sys.exit
        what = f'a class of yours ends the program: {traced(error)}; let it raise an error instead.'
        return _fail(what, EXIT_CANNOT_GO_ON)
    except Exception as error:
        if problem := compiler_problem(error):
            return _fail(problem, EXIT_CANNOT_GO_ON)
        raise


def start(module: str, args: argparse.Namespace) -> int:
    """Import ``mipkd_sr.train`` or ``mipkd_sr.test``, and run it."""
    return import_module(module).start(args)


def run_program(
    module: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run ``mipkd_sr.train`` or ``mipkd_sr.test`` as a program; returns the exit code, see ``run_command``."""
    parser = new_parser(module.replace('mipkd_sr.', 'mipkd-'), description)
    add_arguments(parser)
    return run_command(partial(start, module), parser.parse_args(argv))


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """A context in which Ctrl-C ends the process in a moment, for work that leaves nothing half done.

    Python itself hears of it between two of its instructions, and one of them, such as a big network's backward on a
    CPU, can take half a minute.
    """
    if os.name != 'posix' or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    left = threading.Event()

    def watch() -> None:
        with open(reading, 'rb', buffering=0) as signals:
            while number := signals.read(1):
                if number[0] == signal.SIGINT and not left.wait(MOMENT):
                    os._exit(_fail('interrupted.', EXIT_INTERRUPTED))

    before = signal.set_wakeup_fd(writing)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(writing)  # which ends the watch


def report_failures(failures: Sequence[str]) -> int:
    """Print what could not be done, a line for each file; returns the exit code."""
    for failure in failures:
        _fail(failure, EXIT_CANNOT_GO_ON)
    return EXIT_CANNOT_GO_ON if failures else 0


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """A context in which SIGTERM ends the process as an exception does: a file that is being written ends well."""

    def end(number: int, _: object) -> None:
        raise KeyboardInterrupt(128 + number)

    usual = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _fail(message: str, exit_code: int = EXIT_BAD_OPTIONS) -> int:
    """Print ``message``, and return the exit code.

    What is wrong with the options every process finds alike, and the first one says; other errors may be one's own.
    """
    if exit_code != EXIT_BAD_OPTIONS or os.environ.get('RANK', '0') == '0':
        print(f'error: {printable(message)}\n', end='', file=sys.stderr, flush=True)  # one write: others write, too
    return exit_code


def explain_os_error(error: OSError, again: str) -> str:
    """One sentence for a file that cannot be written or read, or a full disk; ``again`` says how to go on then."""
    where = f'{error.filename}: ' if error.filename else ''
    advice = {
        errno.ENOSPC: f'free some space, and {again}',
        errno.EACCES: 'make it writable',
        errno.EROFS: 'make it writable',
        errno.EEXIST: 'what is there is no folder: remove it, or give another name',
        errno.ENOTDIR: 'a part of it is a file, and no folder: give another name',
    }.get(error.errno or 0, f'put it right, and {again}')
    return f'{where}{error.strerror or error}; {advice}.'


def last_sentence(error: RunError) -> str:
    """A RunError's own sentence; one from a process that reads data comes with that process's traceback before it."""
    return str(error).strip().splitlines()[-1].rpartition('RunError: ')[2]
