"""Measuring in a process of its own, so that one measurement does not change the next."""

import subprocess
import sys
from collections.abc import Sequence

from mipkd_sr.runtime.errors import is_out_of_memory

KILLED = -9


def measure_apart(arguments: Sequence[str]) -> tuple[str, str]:
    """Run ``mipkd benchmark`` with ``arguments`` in a process of its own.

    Returns:
        What it printed, and an empty text; or, if it failed, an empty text and why: ``does not fit`` if memory was
        short, else the last line of its error.
    """
    command = [sys.executable, '-W', 'ignore', '-m', 'mipkd_sr', 'benchmark', *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.strip(), ''
    if done.returncode == KILLED or is_out_of_memory(done.stderr):
        return '', 'does not fit'
    last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), '')
    return '', last or f'ended with exit code {done.returncode}'
