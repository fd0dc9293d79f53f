"""A process that cannot write outside of one folder.

Linux's Landlock (from kernel 5.13 on, for any user) refuses every write, creation, renaming and removal outside of the
folder, from any library and in every process that is started from here, and connections; it cannot be undone. Python's
audit hook notes what was tried. Memory, processor time and processes are limited.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, alike on every architecture."""
WRITE_FILE, REMOVE_DIR, MAKE_SYM, REFER, TRUNCATE = 1 << 1, 1 << 4, 1 << 12, 1 << 13, 1 << 14
NO_NEW_PRIVILEGES = 38
ALLOWED = ('/dev/null', '/dev/shm')
"""What may be written to besides: readers of images send them through shared memory."""
MEMORY, SECONDS, FILE_SIZE = 8 * 2**30, 60, 2**28

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (('files', ctypes.c_uint64), ('network', ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (('allowed', ctypes.c_uint64), ('folder', ctypes.c_int32))


def landlock_version() -> int:
    """What the kernel knows of Landlock; 0 or less: nothing."""
    return _libc.syscall(CREATE_RULESET, None, 0, 1) if sys.platform == 'linux' else 0


def confine(folder: Path) -> None:
    """Allow this process, from here on, to write inside ``folder`` alone.

    Raises:
        OSError: If the system cannot.
    """
    version = landlock_version()
    files = WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # to write, remove, or make anything
    files |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    rules = _Ruleset(files, 0b11 if version >= 4 else 0)  # neither bind nor connect
    ruleset = _call(CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules) if version >= 4 else 8, 0)
    for name in (folder, *filter(os.path.exists, ALLOWED)):
        opened = os.open(name, os.O_PATH)
        allowed = files if Path(name).is_dir() else files & (WRITE_FILE | TRUNCATE)
        _call(ADD_RULE, ruleset, 1, ctypes.byref(_Beneath(allowed, opened)), 0)
        os.close(opened)
    _libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f'Landlock: {os.strerror(code)}')
    return result


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    'os.rename': (0, 1),
    'os.mkdir': (0,),
    'os.remove': (0,),
    'os.rmdir': (0,),
    'os.link': (1,),
    'os.symlink': (1,),
    'os.truncate': (0,),
    'os.chmod': (0,),
    'os.chown': (0,),
    'os.utime': (0,),
    'shutil.rmtree': (0,),
}
"""Audit events that change files, and which of their arguments are the files."""


def watch(folder: Path, tried: list[str]) -> None:
    """Note in ``tried`` every attempt of Python's to change something outside of ``folder``; for good."""
    inside = (os.path.realpath(folder), *ALLOWED)

    def note(event: str, arguments: tuple) -> None:
        if event == 'open':
            names = (arguments[0],) if (arguments[2] or 0) & WRITES else ()
        else:
            names = tuple(arguments[place] for place in CHANGES.get(event, ()))
        for name in names:
            if isinstance(name, str | bytes | os.PathLike):
                path = os.path.realpath(os.fsdecode(name))
                if not any(path == own or path.startswith(f'{own}/') for own in inside):
                    tried.append(f'{event} {path[:200]}')

    sys.addaudithook(note)
