"""Writing files that are either whole or not there."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK = '.run.lock'
"""File in a run's folder that names the process that writes to it. It stays, and so marks the folder as a run's."""


@contextmanager
def atomic_write(file: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """Give the name of a file to write beside ``file``, and rename it to ``file`` at the end.

    Args:
        file: What is to be there, whole, or as it was before.
        durable: Whether it must survive a power cut, too: flushed to the disk before it is renamed, which takes time.

    Raises:
        OSError: If it cannot be written; it names ``file``.
    """
    file = Path(file)
    part = file.with_name(f'.{file.name}.{os.getpid()}.part')
    try:
        yield part
        if durable:
            _sync(part)
        part.replace(file)
        if durable and os.name == 'posix':  # elsewhere a folder cannot be opened
            _sync(file.parent)
    except OSError as error:  # a failed write does not say which file it was
        raise OSError(error.errno, error.strerror or str(error), str(file)) from None
    finally:
        with suppress(OSError):  # in a read-only folder this fails even for an absent file
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_parts(folder: Path, older_than: float = 0) -> None:
    """Remove the remains of interrupted writes from ``folder``, last written ``older_than`` seconds ago.

    0 is for where no other process may be writing.
    """
    for part in folder.glob('.*.[0-9]*.part'):
        if not older_than or time.time() - part.stat().st_mtime > older_than:
            part.unlink(missing_ok=True)


def write_json(content: Any, file: str | os.PathLike[str]) -> None:
    """Write JSON, so that ``file`` is never half-written."""
    with atomic_write(file, durable=True) as part:
        part.write_text(json.dumps(content, indent=1), encoding='utf-8')


def read_json(file: Path, otherwise: Any) -> Any:
    """A JSON file, or ``otherwise`` if it is not there or cannot be read."""
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return otherwise


def fits(value: Any, form: Any) -> bool:
    """Whether a value that was read from JSON has a form.

    Args:
        value: The value.
        form: A type; None; a tuple of forms that it may have; ``[form]`` for a list; ``{'name': form, str: form}`` for
            a mapping with those names, and others of the second form. A whole number is a ``float``; a bool is not.
    """
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        inside = isinstance(value, dict) and all(name is str or name in value for name in form)
        return inside and all(fits(item, form.get(name, form.get(str, object))) for name, item in value.items())
    if (form in (int, float) and isinstance(value, bool)) or form is None:
        return value is form
    return isinstance(value, int | float if form is float else form)


def unused(path: Path) -> Path:
    """``path``, or with a number after it if it is there already."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f'{path.name}_{number}')
    return free
