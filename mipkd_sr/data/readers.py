"""The processes that read images for a training process. If one is stopped or killed, the training does not end."""

import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from mipkd_sr.runtime.stop_requests import SIGNALS


class ReaderLost(Exception):
    """A process that reads images has ended without being asked to; the message says what is known of it."""


def read_ahead(loader: DataLoader) -> Generator[Any, None, None]:
    """The batches of ``loader``.

    Its processes ignore Ctrl-C and SIGTERM; the training process decides when to stop. Close the generator
    (``contextlib.closing``) if you do not take all batches.

    Raises:
        ReaderLost: If one of the processes has died; between two batches, never in the middle of a step.
    """
    before = set(active_children())
    with _signals_held_back():  # and so they are in processes that are started here, for good
        batches = iter(loader)
    readers = set(active_children()) - before
    watch = _Watch(readers)
    fetch = partial(next, batches)
    try:
        while True:
            try:
                batch = watch.call(fetch)
            except StopIteration:
                watch.end()
                return
            yield batch
    finally:
        for reader in readers if watch.lost else ():  # they may wait for a lock that the lost one had
            reader.kill()
        del batches, fetch  # which ends the others
        for reader in readers:
            reader.join(1)
            reader.kill()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    if not hasattr(signal, 'pthread_sigmask'):  # Windows sends none to processes
        yield
        return
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


class _Watch:
    """Lets torch's handler of SIGCHLD raise its error about a dead reader only where a batch is waited for."""

    _of_torch: ClassVar[Any] = None  # torch sets its handler once

    def __init__(self, readers: set[BaseProcess]) -> None:
        self.lost = False
        self._readers = readers
        self._can_change = hasattr(signal, 'SIGCHLD') and threading.current_thread() is threading.main_thread()
        if self._can_change and callable(handler := signal.getsignal(signal.SIGCHLD)):
            _Watch._of_torch = handler
        self._let_raise(False)

    def _let_raise(self, wanted: bool) -> None:
        if self._can_change and _Watch._of_torch:
            signal.signal(signal.SIGCHLD, _Watch._of_torch if wanted else signal.SIG_DFL)

    def call(self, fetch: Callable[[], Any]) -> Any:
        """Call ``fetch``; raise ReaderLost if a reader's death causes an error."""
        try:
            try:
                self._let_raise(True)
                self._look()
                return fetch()
            finally:
                self._let_raise(False)
        except StopIteration:
            raise
        except Exception as error:
            if (explained := self._explained(error)) is not error:
                raise explained from error
            raise

    def _look(self) -> None:
        """Raise torch's error if a reader has died since the last call."""
        if self._readers and _Watch._of_torch:
            _Watch._of_torch(signal.SIGCHLD, None)

    def _explained(self, error: Exception) -> Exception:
        """The error, or a ReaderLost if a reader has died, as any error is then its consequence."""
        broken_off = isinstance(error, OSError | EOFError)  # a connection ends a little before its process
        self.lost = bool(wait([reader.sentinel for reader in self._readers], 1 if broken_off else 0))
        text = str(error)
        try:
            self._look()
        except RuntimeError as death:
            text += str(death)
        found = re.search(r'killed by signal: ([^.]*)', text)
        if found or self.lost:
            self.lost = True
            return ReaderLost(f'was killed ({found[1].strip()})' if found else 'was killed')
        return error

    def end(self) -> None:
        """Put torch's handler back, unless a reader has died: it would raise that error once more."""
        self._let_raise(True)
