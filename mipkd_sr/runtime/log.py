"""The log of a run: to the terminal, and to a file in its folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basicsr.utils import get_root_logger, get_time_str
from tqdm.contrib.logging import logging_redirect_tqdm


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
    handler = logging.FileHandler(Path(folder, f'{prefix}_{get_time_str()}.log'))
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
    logger.addHandler(handler)
    try:
        with logging_redirect_tqdm([logger]):
            yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()
