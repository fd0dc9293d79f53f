"""Long work that says how far it is: a bar on a terminal, a line a minute anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar('Item')
EVERY = 60.0
"""Seconds between two lines."""


def told(items: Iterable[Item], total: int, what: str, unit: str = 'image', silent: bool = False) -> Iterator[Item]:
    """The same ``total`` items; standard error says how many are done and about how long the rest takes.

    ``what`` is the name of the work, ``unit`` what an item is.
    """
    if silent or sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit, disable=silent)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            left = f', about {_clock((now - start) / done * (total - done))} left' if done else ''
            print(f'{what}: {done} of {total} {unit}s in {_clock(now - start)}{left}', file=sys.stderr, flush=True)
        yield item


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=int(seconds))
