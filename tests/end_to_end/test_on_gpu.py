"""scripts/on_gpu.sh: its steps, in order, each once, whatever fails; and a study's rows over several machines.

The Python that it calls is a stand-in.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.conftest import ROOT

Done = tuple[subprocess.CompletedProcess[str], list[str]]
WAYS = ('bf16_graphs', 'bf16')
STEPS = [
    'environment',
    'tests',
    'warm_up_cold',
    'warm_up_warm',
    *(f'step_{pair}_{way}' for pair in ('edsr', 'swinir', 'rcan') for way in WAYS),
    'loader',
    'step_edsr_tf32_graphs',
    'step_edsr_tf32',
    *(f'plan_{pair}' for pair in ('edsr', 'swinir', 'rcan')),
    'test_distributed',
    'test_step_cost',
    'test_switches',
]
MEASURING = (
    '[ "$3" != prepare ] || mkdir -p "$WORK/datasets"\n'
    'log=$WORK/experiments/loader/a.log; mkdir -p "${log%/*}"; echo "data 1%" > "$log"\n'
    'for word in $FAILING; do case "$*" in *"$word"*) echo "no $word"; exit 1;; esac; done\n'
)
TRAINING = """
import os, pathlib, signal, sys, time
study, words = pathlib.Path(sys.argv[5] if 'compare' in sys.argv else '.'), sys.argv
results, runs = study.parent / 'results.json', pathlib.Path(os.environ['WORK'], 'experiments')
finished = results.read_text().split() if results.exists() else []
if 'compare' in words and '--commands' in words:
    left = [name for name in ('first', 'second', 'third') if name not in finished]
    print(*(f'mipkd compare x --run {name}' for name in left), sep='\\n')
for name in words[words.index('--run') + 1 :] if '--run' in words else ():
    states, models = runs / name / 'training_states', runs / name / 'models'
    states.mkdir(parents=True, exist_ok=True)
    before = [int(file.stem) for file in states.iterdir()]
    for step in range(max(before, default=0) + 1, 16):
        time.sleep(0.15)
        (states / f'{step}.state').write_bytes(name.encode() * 200_000)
        (runs / name / 'history.json').write_text(f'{step} of 15')
        if os.environ['WAY'] == 'one step of each':
            break
    else:
        models.mkdir()
        (models / 'net_g_latest.pth').write_bytes(b'student' * 200_000)
        finished.append(name)
        results.write_text(' '.join(finished))
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """A function that runs the script: what it printed, and the commands that its Python was given."""
    stub, calls = tmp_path / 'stub.sh', tmp_path / 'calls'
    (tmp_path / 'stub.py').write_text(TRAINING)
    stub.write_text(
        f'#!/bin/bash\necho "$@" >> {calls}\n[ -z "$SLOW" ] || sleep "$SLOW"\n{MEASURING}'
        f'[ -z "$WAY" ] || exec {sys.executable} -S {tmp_path}/stub.py "$0" "$@"\n'
    )
    stub.chmod(0o755)

    def start(*arguments: str, **environment: str) -> Done:
        calls.write_text('')
        command = ['bash', str(ROOT / 'scripts/on_gpu.sh'), *(arguments or ('out',))]
        usual = {'PYTHON': str(stub), 'FAILING': '', 'SLOW': '', 'WAY': '', 'MINIATURE': '1', 'SAVE_SECONDS': '0'}
        variables = os.environ | usual | environment
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        return done, calls.read_text().splitlines()

    return start


def names_in(folder: Path, tar: str) -> set[str]:
    """The files of a tar that came back in parts."""
    content = b''.join(part.read_bytes() for part in sorted(folder.glob(f'{tar}.tar.*')))
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        return {member.name for member in archive if member.isfile()}


def test_every_step_runs_once_and_its_files_are_one_tar(run, tmp_path):
    done, calls = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.removeprefix('== ') for line in done.stdout.splitlines() if line.startswith('==')] == STEPS
    assert sum('benchmark step' in call and '--minutes 3.5' in call for call in calls) == 10
    assert {file.stem for file in (tmp_path / 'out/work').glob('*.done')} == set(STEPS)
    assert names_in(tmp_path / 'out', 'measured') == {f'{step}.{end}' for step in STEPS for end in ('log', 'done')}
    again, calls = run()
    assert again.returncode == 0
    assert calls == []
    elsewhere, calls = run('other', FROM='out')  # another machine, which has the tar alone
    assert elsewhere.returncode == 0
    assert calls == []


def test_a_step_that_fails_keeps_no_other_from_running_and_is_run_again(run, tmp_path):
    done, _ = run(FAILING='rcan_x4 prepare')
    assert done.returncode == 1
    missing = {f'step_rcan_{way}' for way in WAYS} | {'plan_rcan', 'loader'}
    assert {file.stem for file in (tmp_path / 'out/work').glob('*.done')} == set(STEPS) - missing
    assert 'failed: loader (see loader.log)' in done.stdout
    assert (tmp_path / 'out/work/loader.log').read_text() == 'no prepare\n'
    again, calls = run()
    assert again.returncode == 0
    assert len(calls) == 3 + 3 + 1  # rcan's; two folders prepared, after the photographs are copied; and the loader


def test_nothing_runs_longer_than_it_may(run, tmp_path):
    done, _ = run('out', '0.1', SLOW='30')  # 6 seconds
    assert done.returncode == 3
    assert 'not done: environment (stopped in time' in done.stdout
    assert 'not done: test_switches (no time left)' in done.stdout
    assert not list((tmp_path / 'out/work').glob('*.done'))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file, with a recipe beside it."""
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'study.yml').touch()
    (folder / 'recipe.yml').touch()
    return folder / 'study.yml'


def test_a_study_goes_on_over_three_machines_that_know_the_last_ones_tar_alone(run, study, tmp_path):
    rows, last = {}, ''
    for number in range(40):
        out = f'out{number}'
        limits = {'WAY': 'one after another', 'STUDY': str(study), 'LEAST_SECONDS': '0', 'FILE_MB': '1'}
        done, _ = run('campaign', out, '0.045', **limits, **({'FROM': last} if last else {}))
        assert done.returncode in (0, 3), done.stdout + done.stderr
        assert ('not done: third' in done.stdout) == (done.returncode == 3)
        files = list((tmp_path / out).glob('*.tar.*'))
        assert 1 <= len(files) <= 8
        assert max(file.stat().st_size for file in files) <= 1_000_000
        names = names_in(tmp_path / out, 'campaign')
        states = [name for name in names if name.endswith('.state')]
        assert len(states) <= 1, names
        assert not [name for name in names if name.endswith('.pth')]
        if (tmp_path / out / 'students.tar.00').exists():
            rows |= {name.split('/')[1]: number for name in names_in(tmp_path / out, 'students') if 'latest' in name}
        last = out
        if done.returncode == 0:
            break
    assert number >= 2
    assert rows.keys() == {'first', 'second', 'third'}
    histories = [file.read_text() for file in tmp_path.glob('out*/work/experiments/*/history.json')]
    assert histories.count('15 of 15') == 3  # none began again


def test_rows_that_cannot_be_brought_are_named_and_the_furthest_is_kept(run, study, tmp_path):
    (tmp_path / 'out/work/experiments/third/training_states').mkdir(parents=True)
    (tmp_path / 'out/work/experiments/third/training_states/9.state').write_bytes(b'third' * 200_000)
    limits = {'STUDY': str(study), 'WAY': 'one step of each', 'ROOM_MB': '3'}
    done, _ = run('campaign', 'out', **limits)
    assert done.returncode == 1
    assert 'failed: rows (see campaign.log)' in done.stdout  # after which there are as many as before
    assert 'failed: first: it will begin again, as campaign.tar may have 3 MB; lower JOBS' in done.stdout
    states = {name for name in names_in(tmp_path / 'out', 'campaign') if name.endswith('.state')}
    assert states == {f'experiments/{row}.state' for row in ('third/training_states/10', 'second/training_states/1')}


def test_a_place_that_is_not_there_is_an_error(run, tmp_path):
    for arguments in (('out',), ('campaign', 'out'), ('bring',)):
        done, calls = run(*arguments, HR=str(tmp_path / 'photgraphs'))
        assert (done.returncode, calls) == (2, [])
        assert 'photgraphs' in done.stderr


def test_without_a_place_for_results_the_usage_is_printed(run):
    done, calls = run('campaign')
    assert (done.returncode, calls) == (2, [])
    assert 'campaign OUT [MINUTES]    the rows of a study' in done.stdout
