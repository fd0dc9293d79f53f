"""How far long work is, where there is no terminal."""

import io
import sys
import time

import pytest

from mipkd_sr.runtime.long_work import told


@pytest.mark.parametrize(('seconds', 'lines'), [(1, 0), (45, 2), (130, 5)])
def test_a_line_a_minute_says_what_is_done_and_what_is_left(seconds, lines, monkeypatch, capsys):
    clock = iter(range(0, 10**6, seconds))
    monkeypatch.setattr(time, 'monotonic', lambda: float(next(clock)))
    assert list(told('abcde', 5, 'B100')) == list('abcde')
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    if seconds == 130:
        assert said[1] == 'B100: 1 of 5 images in 0:04:20, about 0:17:20 left'
        assert said[0] == 'B100: 0 of 5 images in 0:02:10'


def test_a_terminal_has_a_bar_and_nobody_else_anything_when_silent(monkeypatch, capsys):
    assert list(told([1, 2], 2, 'B100', silent=True)) == [1, 2]
    assert capsys.readouterr().err == ''
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, 'stderr', terminal)
    assert list(told([1, 2], 2, 'B100')) == [1, 2]
    assert 'B100: 100%' in terminal.getvalue()
