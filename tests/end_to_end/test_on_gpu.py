"""scripts/on_gpu.sh: its steps, in order, each once, whatever fails. The Python that it calls is a stand-in."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAIRS = ('edsr', 'rcan', 'swinir')
ARITHMETICS = ('tf32', 'bf16', 'tf32_compiled', 'bf16_compiled')
STEPS = [
    'environment',
    'tests',
    *(name for pair in PAIRS for name in (*(f'step_{pair}_{a}' for a in ARITHMETICS), f'plan_{pair}')),
    'prepare',
    'loader',
    'students',
]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]:
    """A function that runs the script: what it printed, and the commands that its Python was given."""
    stub, calls = tmp_path / 'stub.sh', tmp_path / 'calls'
    stub.write_text(
        f'#!/bin/bash\necho "$@" >> {calls}\n[ -z "$SLOW" ] || sleep "$SLOW"\n'
        'log=$OUT/experiments/loader/a.log; mkdir -p "${log%/*}"; echo "data 1%" > "$log"\n'
        'for word in $FAILING; do case "$*" in *"$word"*) echo "no $word"; exit 1;; esac; done\n'
    )
    stub.chmod(0o755)
    teacher = tmp_path / 'teacher.pth'
    teacher.touch()

    def start(*minutes: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        calls.write_text('')
        command = ['bash', str(ROOT / 'scripts/on_gpu.sh'), str(tmp_path / 'out'), *minutes]
        variables = {'PYTHON': str(stub), 'TEACHER': str(teacher), 'FAILING': '', 'SLOW': '', 'MINIATURE': '1'}
        done = subprocess.run(
            command, env=os.environ | variables | environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
        )
        return done, calls.read_text().splitlines()

    return start


def test_every_step_runs_once(run, tmp_path):
    done, calls = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.removeprefix('== ') for line in done.stdout.splitlines() if line.startswith('==')] == STEPS
    assert sum('benchmark step' in call for call in calls) == 12
    assert {file.stem for file in (tmp_path / 'out').glob('*.done')} == set(STEPS)
    again, calls = run()
    assert again.returncode == 0
    assert calls == []


def test_a_step_that_fails_keeps_no_other_from_running_and_is_run_again(run, tmp_path):
    done, _ = run(FAILING='rcan_x4 prepare')
    assert done.returncode == 1
    missing = {f'step_rcan_{a}' for a in ARITHMETICS} | {'plan_rcan', 'prepare'}
    assert {file.stem for file in (tmp_path / 'out').glob('*.done')} == set(STEPS) - missing
    assert 'not done: prepare (see ' in done.stdout
    assert (tmp_path / 'out/prepare.log').read_text() == 'no prepare\n'
    again, calls = run()
    assert again.returncode == 0
    assert len(calls) == 4 + 1 + 3  # rcan's steps and plan; two folders prepared, after the photographs are copied


def test_nothing_runs_longer_than_it_may(run, tmp_path):
    done, _ = run('0.1', SLOW='30')  # 6 seconds
    assert done.returncode == 1
    assert 'not done: environment (see ' in done.stdout
    assert 'not done: students (no time left)' in done.stdout
    assert not list((tmp_path / 'out').glob('*.done'))


def test_without_a_teacher_the_students_are_left_out(run):
    done, calls = run(TEACHER='')
    assert done.returncode == 0
    assert 'students: left out, as TEACHER names no weights' in done.stdout
    assert not any('compare' in call for call in calls)
