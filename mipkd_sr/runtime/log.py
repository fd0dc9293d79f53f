"""The log of a run: to the terminal, and to a file in its folder."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from basicsr.utils import get_root_logger, get_time_str
from tqdm.contrib.logging import logging_redirect_tqdm


class _LogFile(logging.FileHandler):
    """A log file. If it cannot be written, it says so once and is given up; the terminal has everything."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called where a record could not be written."""
        self.setLevel(logging.CRITICAL + 1)
        get_root_logger().warning(
            f'The log is off from here on: {self.baseFilename} cannot be written ({sys.exc_info()[1]}).'
        )

    def close(self) -> None:
        """Close the file, whatever could not be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def run_log(folder: str, prefix: str, rank: int) -> Iterator[logging.Logger]:
    """BasicSR's logger, writing to the terminal (around progress bars) and to a file in ``folder`` of its own.

    Ranks other than the first log errors alone, to the terminal.
    """
    logger = get_root_logger()
    if rank != 0:
        logger.setLevel(logging.ERROR)
        yield logger
        return
    logger.setLevel(logging.INFO)
    file = Path(folder, f'{prefix}_{get_time_str()}.log')
    handler = _LogFile(file, encoding='utf-8', errors='backslashreplace')
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
    logger.addHandler(handler)
    try:
        with logging_redirect_tqdm([logger]):
            yield logger
    except Exception as error:  # the terminal has one sentence; the file has where it comes from
        told = logging.LogRecord(logger.name, logging.ERROR, str(file), 0, '%s', (error,), sys.exc_info())
        handler.handle(told)
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
