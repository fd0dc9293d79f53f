"""A run's folder: one process at a time writes to it, and only folders of runs are ever renamed."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from basicsr.utils import get_root_logger, get_time_str

from mipkd_sr.runtime.errors import BusyError, OptionError
from mipkd_sr.runtime.files import LOCK, unused

try:
    import fcntl
except ImportError:  # Windows has no such locks: there two runs of one name are not kept apart
    fcntl = None  # type: ignore[assignment]

TRAINING_MARKS = (LOCK, 'training_states')
"""A folder with one of these is a training run's, BasicSR's included."""
TESTING_MARKS = (LOCK, 'test_*.log')
"""A folder with one of these holds results, BasicSR's included."""
TENSORBOARD_MARKS = ('events.out.tfevents.*',)
"""What a folder of TensorBoard's holds."""
LONGEST_NAME = 200
"""Bytes; file systems take 255, and dates and endings are added."""


def problem_with_name(name: str) -> str:
    """Why a text cannot be the name of a folder, for a message; nothing if it can."""
    if not name:
        return 'is empty'
    if name.startswith('.'):
        return f"'{name}' begins with a dot"
    if any(character in '/\\' or not character.isprintable() for character in name):
        return f'{name!r} has a slash or a character that cannot be printed in it'
    if len(name.encode('utf-8', 'replace')) > LONGEST_NAME:
        return f'is longer than {LONGEST_NAME} bytes'
    return ''


def check_ours(folder: Path, marks: tuple[str, ...]) -> None:
    """Check that a folder is absent, empty, or a run's.

    Args:
        folder: The folder.
        marks: File names (patterns) of which a run's folder has at least one.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OptionError('name', f'{folder} is in the way, and is no folder; give another name.')
    if any(folder.iterdir()) and not any(True for mark in marks for _ in folder.glob(mark)):
        raise OptionError('name', f'{folder} is in the way, and holds no run; give another name.')


def archive(folder: Path, marks: tuple[str, ...]) -> None:
    """Rename a run's folder as BasicSR does, so that a new run of the same name loses nothing.

    Args:
        folder: The folder; it may be absent.
        marks: See ``check_ours``.
    """
    check_ours(folder, marks)
    if not folder.exists():
        return
    folder = folder.resolve()  # of a link, what it leads to
    archive = unused(folder.with_name(f'{folder.name}_archived_{get_time_str()}'))
    try:
        folder.rename(archive)
    except OSError as error:
        raise OptionError('name', f'{folder} is in the way and cannot be renamed ({error.strerror}).') from None
    print(f'{folder} is there already; it is now {archive}', flush=True)


@contextmanager
def own_folder(folder: Path, marks: tuple[str, ...], anew: bool) -> Iterator[None]:
    """Have a folder for this process alone; it is created if need be.

    Args:
        folder: The folder.
        marks: See ``check_ours``.
        anew: Whether to begin with an empty one; what stood there is archived.
    """
    check_ours(folder, marks)
    folder = folder.resolve()  # a link to another disk stays, and so does the run there
    with ExitStack() as stack:
        if folder.exists():
            stack.enter_context(_locked(folder))
        if anew:
            archive(folder, marks)
        if not folder.exists():
            folder.mkdir(parents=True)
            stack.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder, as long as this one lives."""
    if fcntl is None:
        yield
        return
    try:
        opened = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OptionError('name', f'{folder / LOCK} is a link, which no run of ours has; remove it.') from None
    with open(opened, 'a+b') as file:
        # Not flock: processes that this one has forked, such as those that read images, would hold it on.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = _holder(file)
            raise BusyError(
                'name', f'{folder} belongs to a run that is going on{holder}; wait for it, or give another name.'
            ) from None
        except OSError as error:  # a file system without locks
            get_root_logger().warning(
                f'{folder} cannot be locked ({error.strerror}): see to it that no other run has the same name.'
            )
        if not (folder / LOCK).exists() or not os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
            raise OptionError('name', f'{folder} has just been taken by another run; give another name.')
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%F %T")}'.encode())
        file.flush()
        yield


def _holder(file: BinaryIO) -> str:
    """Who has locked a file."""
    try:
        file.seek(0)
        return f' ({file.read(200).decode("utf-8", "replace")})'
    except OSError:
        return ''
