import argparse
import logging
import sys
from io import RawIOBase, TextIOWrapper

from mipkd_sr.commands.command_line import run_command
from mipkd_sr.runtime.log import run_log


def test_a_line_is_one_write(tmp_path, monkeypatch):
    """As other processes write to the same terminal, between the writes of this one, which is not buffered."""
    writes: list[str] = []

    class Terminal(RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, text) -> int:
            writes.append(bytes(text).decode())
            return len(text)

    monkeypatch.setattr(sys, 'stderr', TextIOWrapper(Terminal(), encoding='utf-8', newline='\n', write_through=True))

    def command(args: argparse.Namespace) -> int:
        monkeypatch.setattr(logging.getLogger('basicsr'), 'handlers', [logging.StreamHandler(sys.stderr)])
        with run_log(str(tmp_path), 'train', 0) as logger:
            logger.info('first')
            logger.info('second')
        raise OSError(28, 'No space left on device')

    assert run_command(command, argparse.Namespace()) == 4
    *lines, error = [text for text in writes if text]
    assert lines == ['first\n', 'second\n']
    assert error.startswith('error: ')
    assert error.endswith('\n')
