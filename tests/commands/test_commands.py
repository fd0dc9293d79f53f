"""The command ``mipkd``: its subcommands, their help, how they end."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import pytest
import torch
import yaml

from mipkd_sr.archs import build_network
from mipkd_sr.cli import build_parser, main
from mipkd_sr.commands.benchmark import own_process
from mipkd_sr.commands.command_line import run_command
from mipkd_sr.runtime.errors import Interrupted, OptionError, RunError
from tests.conftest import ENVIRONMENT, ROOT, SCALE, STUDENT, smooth_image

COMMANDS = [
    'demo',
    'train',
    'test',
    'compare',
    'prepare',
    'label',
    'upscale',
    'export',
    'plot',
    'benchmark',
    'recipes',
    'options',
]
MEASUREMENTS = ('step', 'complexity', 'device', 'plan')


@pytest.mark.parametrize('command', [*COMMANDS, *(f'benchmark {name}' for name in MEASUREMENTS)])
def test_the_help_of_every_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), '--help'])
    assert end.value.code == 0
    assert re.search(rf'^ *mipkd {command}\b', capsys.readouterr().out, re.MULTILINE)


def test_the_help_names_every_command_and_no_inner_one(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith('    ')]
    assert [name for name in shown if name in COMMANDS] == COMMANDS
    assert 'once' not in build_parser().format_help()


@pytest.mark.parametrize(
    ('error', 'code', 'said'),
    [
        (OptionError('train:lr', 'is wrong.'), 2, 'error: train:lr: is wrong.\n'),
        (RunError('the disk is on fire.'), 4, 'error: the disk is on fire.\n'),
        (OSError(28, 'No space left on device', 'a.png'), 4, 'a.png: No space left on device; free some space, and '),
        (OptionError('name', f'{"x/" * 3000} is no name.'), 2, ' is no name.\n'),
        (KeyboardInterrupt(), 130, 'error: interrupted.\n'),
        (Interrupted(7, 15), 143, ''),
    ],
)
def test_what_ends_a_command_is_one_sentence_and_an_exit_code(error, code, said, capsys):
    def run(args):
        raise error

    assert run_command(run, None) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert len((captured.err + captured.out).splitlines()) == 1
    assert len(captured.err) < 1000
    assert 'stopped by SIGTERM after iteration 7; go on with --auto_resume' in captured.out or code != 143


@pytest.mark.parametrize(
    'arguments',
    [
        'prepare photos --out FILE/x',
        'plot curves runs/a --out FILE/x',
        'export -opt options.yml --weights student.pth --out FILE/x.pth',
        'upscale photos -opt options.yml --weights student.pth --out FILE/x',
        'demo --root FILE',
    ],
)
def test_a_file_where_a_folder_should_be_is_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    for name in ('photos', 'runs/a'):
        (tmp_path / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'photos' / 'a.png'), smooth_image(24, 24, 0))
    (tmp_path / 'runs/a/validations.json').write_text('[{"iter": 1, "dataset": "a", "psnr": 20.0}]')
    (tmp_path / 'options.yml').write_text(yaml.safe_dump({'scale': SCALE, 'network_g': STUDENT}))
    torch.save({'params': build_network(STUDENT).state_dict()}, tmp_path / 'student.pth')
    (tmp_path / 'FILE').write_text('mine')
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    assert main(arguments.split()) in (2, 4)
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if 'error: ' in line and 'FILE' in line and 'no' in line] == errors[-1:]
    assert sorted(tmp_path.rglob('*')) == before


def test_an_error_is_one_write_so_that_processes_do_not_mix_theirs(monkeypatch):
    written = []
    monkeypatch.setattr(sys, 'stderr', SimpleNamespace(write=written.append, flush=lambda: None))
    assert main(['upscale', 'no_such', '--out', 'o', '--scale', '2']) == 2
    (line,) = filter(None, written)
    assert line.startswith('error: ')
    assert line.endswith('\n')


@pytest.mark.parametrize(
    'program',
    [
        '-m mipkd_sr recipes',
        *(f'{start} -opt demo/mipkd' for start in ('-m mipkd_sr train', '-m mipkd_sr.train', 'mipkd_sr/train.py')),
        *(f'{start} -opt demo' for start in ('-m mipkd_sr test', '-m mipkd_sr.test', 'mipkd_sr/test.py')),
    ],
)
def test_ctrl_c_before_a_program_begins_is_one_sentence(program, tmp_path):
    """While PyTorch and BasicSR are imported, for which a BasicSR that is interrupted at once stands in."""
    (tmp_path / 'basicsr.py').write_text('raise KeyboardInterrupt')
    environment = ENVIRONMENT | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
    command = [sys.executable, *program.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, 'error: interrupted.\n')


@pytest.mark.parametrize(
    ('code', 'error', 'found'),
    [
        (1, 'Traceback\nRuntimeError: CUDA out of memory. Tried', 'does not fit'),
        (-9, '', 'does not fit'),
        (1, 'Traceback\nModuleNotFoundError: No module named x\n', 'ModuleNotFoundError: No module named x'),
        (5, '', 'ended with exit code 5'),
    ],
)
def test_a_measurement_that_fails_says_why(code, error, found, monkeypatch):
    done = subprocess.CompletedProcess([], code, '', error)
    monkeypatch.setattr(own_process.subprocess, 'run', lambda *args, **kwargs: done)
    assert own_process.measure_apart(['complexity-once']) == ('', found)


def test_a_measurement_in_a_process_of_its_own():
    sizes = ['--size', '16', '--repeats', '1']
    found, failure = own_process.measure_apart(['complexity-once', '-opt', 'demo', '--network', 'bicubic', *sizes])
    assert failure == ''
    assert all(float(value.replace(',', '')) > 0 for value in found.split())
    _, failure = own_process.measure_apart(['complexity-once', '-opt', 'nothing.yml', '--network', 'x'])
    assert failure.startswith('error: nothing.yml: there is no such file')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['step', '--methods', 'KDD'], "--methods: there is no method 'KDD'"),
        (['plan', '-opt', 'demo/mipkd', '--gpu', 'V1000'], "--gpu: 'V1000' is not known"),
        (['complexity', '-opt', 'demo/mipkdd'], 'demo/mipkdd: there is no such file and no such recipe; did you mean'),
    ],
)
def test_a_wrong_argument_of_a_measurement_is_one_sentence(arguments, message, capsys):
    assert main(['benchmark', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_reader_that_has_gone_away_is_no_error():
    command = f'{sys.executable} -W ignore -m mipkd_sr recipes | true'
    done = subprocess.run(['bash', '-o', 'pipefail', '-c', command], capture_output=True, text=True)
    assert done.stderr == ''
