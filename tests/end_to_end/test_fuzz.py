"""The adversary: a few hundred of its cases, and that it cannot leave its folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT
from tests.fuzz.confine import confine, landlock_version, watch

pytestmark = pytest.mark.skipif(landlock_version() < 1, reason='needs Linux with Landlock')


def test_no_case_ends_in_a_traceback_a_hang_or_outside_its_folder():
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.fuzz', '--cases', '200', '--seed', '2025']
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert '200 cases with seed 2025' in done.stdout
    assert ', 0 failed' in done.stdout
    assert "ended with {'dry run': 0, 'run': 0}" in done.stdout  # some are not refused, and run


def in_a_process(folder: Path, change) -> tuple[int, str]:
    """What a confined process's attempt came to: 1 where it was refused; and what was noted."""
    reading, writing = os.pipe()
    if process := os.fork():
        os.close(writing)
        with os.fdopen(reading) as stream:
            said = stream.read()
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said
    tried: list[str] = []
    watch(folder, tried)
    confine(folder)
    code = 0
    try:
        change()
    except OSError:
        code = 1
    os.write(writing, ' '.join(tried).encode())
    os._exit(code)


@pytest.mark.parametrize('change', ['write', 'append', 'rename', 'remove', 'mkdir', 'truncate'])
def test_a_confined_process_changes_nothing_outside(change, tmp_path):
    (inside := tmp_path / 'inside').mkdir()
    (mine := tmp_path / 'mine').write_text('kept')
    changes = {
        'write': lambda: mine.write_text('lost'),
        'append': lambda: mine.open('a'),
        'rename': lambda: mine.rename(tmp_path / 'other'),
        'remove': mine.unlink,
        'mkdir': lambda: (tmp_path / 'new').mkdir(),
        'truncate': lambda: os.truncate(mine, 0),
    }
    code, tried = in_a_process(inside, changes[change])
    assert code == 1
    assert str(tmp_path) in tried
    assert mine.read_text() == 'kept'
    assert {file.name for file in tmp_path.iterdir()} == {'inside', 'mine'}


def test_a_confined_process_does_as_it_likes_inside(tmp_path):
    (inside := tmp_path / 'inside').mkdir()
    assert in_a_process(inside, lambda: (inside / 'a').write_text('x')) == (0, '')
    assert (inside / 'a').read_text() == 'x'
