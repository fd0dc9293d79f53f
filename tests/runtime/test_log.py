import logging
import sys

from mipkd_sr.runtime.log import run_log


def test_a_line_is_one_write(tmp_path, monkeypatch):
    """As other processes write to the same terminal, between the writes of this one."""

    writes: list[str] = []

    class Terminal:
        def write(self, text: str) -> None:
            writes.append(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, 'stderr', Terminal())
    monkeypatch.setattr(logging.getLogger('basicsr'), 'handlers', [logging.StreamHandler(sys.stderr)])
    with run_log(str(tmp_path), 'train', 0) as logger:
        logger.info('first')
        logger.info('second')
    assert [text for text in writes if text] == ['first\n', 'second\n']
