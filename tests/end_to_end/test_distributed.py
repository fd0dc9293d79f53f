"""Several processes: the same gradients, the same table, stops and restarts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, ROOT, experiment, launch, same, state
from tests.gradients import all_gradients


@pytest.fixture(scope='module')
def both_gradients(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Every case's gradients on one process, and on two with half the batch each."""
    file = tmp_path_factory.mktemp('gradients') / 'two.pth'
    command = launch(2, '-m', 'tests.gradients', file)
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return all_gradients(), torch.load(file, weights_only=True)


def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(both_gradients):
    """In double precision, for every method, the block prior mixer through student, teacher and both."""
    one, two = both_gradients
    assert one.keys() == two.keys()
    for case, expected in one.items():
        assert expected.keys() == two[case].keys(), case
        largest = max(value.abs().max().item() for value in expected.values())
        assert largest > 0, case
        for name, value in expected.items():
            size = max(value.abs().max().item(), 1e-6 * largest)  # a bias that a loss does not feel has rounding errors
            assert (two[case][name] - value).abs().max().item() < 1e-6 * size, (case, name)


def train_on_two(file: Path) -> str:
    """Train under torchrun on two processes; returns what was said."""
    command = launch(2, '-m', 'mipkd_sr.train', '-opt', file, '--launcher', 'pytorch')
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_train_as_one_with_twice_the_batch(training_options, write_options, tmp_path):
    opt = training_options('kd', 'mipkd', 'dukd')
    opt['train']['mipkd_opt']['balance'] = 0.5
    opt['train']['optim_g'] = {'type': 'SGD', 'lr': 1e-3}  # Adam turns rounding errors of tiny gradients into steps
    train_on_two(write_options(opt, 'two.yml'))
    opt['name'] = 'one'
    opt['datasets']['train']['batch_size_per_gpu'] = 4
    assert main(['-opt', str(write_options(opt, 'one.yml'))]) == 0
    one = load_file(tmp_path / 'experiments' / 'one' / 'training_states' / '4.state')
    two = state(tmp_path, 4)
    start = state(tmp_path, 2)['networks']['params']
    for part in ('networks', 'objectives'):
        values, others = (found['networks']['params'] if part == 'networks' else found[part] for found in (one, two))
        for name, value in values.items():
            assert torch.allclose(value, others[name], rtol=0, atol=1e-6), name
    assert any(not torch.equal(value, start[name]) for name, value in two['networks']['params'].items())
    assert one['samples'] == two['samples'] == 16


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


def test_two_nodes_train_as_two_processes_of_one(training_options, write_options, tmp_path):
    """A torchrun for each node, as on two machines."""
    file, port = write_options(training_options('kd', 'mipkd')), free_port()
    nodes = []
    for node in (0, 1):
        where = ['--nnodes=2', '--nproc_per_node=1', f'--node_rank={node}', '--master_addr=127.0.0.1']
        run = [sys.executable, '-m', 'torch.distributed.run', *where, f'--master_port={port}', '-m', 'mipkd_sr.train']
        command = [*run, '-opt', str(file), '--launcher', 'pytorch', '--root', str(tmp_path / 'nodes')]
        nodes.append(subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    said = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    train_on_two(file)
    assert same(state(tmp_path / 'nodes', 4), state(tmp_path, 4))


def test_validation_shared_between_processes_gives_the_same_table(training_options, write_options, tmp_path):
    """Five images on two processes; the learning rate is 0, so that the networks are the same to the last bit."""
    metrics = {'ssim': {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True}}
    opt = training_options(
        'kd', train={'total_iter': 2, 'optim_g': {'lr': 0.0}}, val={'metrics': metrics, 'save_img': True}
    )
    train_on_two(write_options(opt, 'two.yml'))
    opt['name'] = 'one'
    assert main(['-opt', str(write_options(opt, 'one.yml'))]) == 0
    one, two = (
        json.loads((tmp_path / 'experiments' / name / 'validations.json').read_text()) for name in ('one', 'tiny')
    )
    assert one == two
    assert set(one[0]) == {'iter', 'dataset', 'psnr', 'ssim', 'psnr_to_teacher'}
    assert len(list((experiment(tmp_path) / 'visualization').glob('*/*.png'))) == 5


def test_every_objective_at_once_under_two_processes(training_options, write_options, tmp_path):
    more = {
        'rkd_opt': {'type': 'RKDLoss'},
        'at_opt': {'type': 'ATLoss', 'positions': 2},
        'fitnet_opt': {'type': 'FitNetLoss', 'positions': 2},
        'fakd_opt': {'type': 'FAKDLoss', 'positions': 2},
        'crosskd_opt': {'type': 'CrossKDLoss'},
        'augmentation_opt': {'type': 'AugmentationLoss'},
        'accumulation_steps': 2,
        'total_iter': 3,
    }
    said = train_on_two(write_options(training_options('kd', 'mipkd', 'dukd', train=more)))
    assert state(tmp_path, 3)['iter'] == 3
    assert all(torch.isfinite(value).all() for value in state(tmp_path, 3)['networks']['params'].values())
    for name in ('l_rkd_d', 'l_at', 'l_fitnet', 'l_fakd', 'l_cross', 'l_zoom_in', 'l_zoom_out', 'l_aug', 'l_feat'):
        assert f'{name}: ' in said


def test_slurms_variables_are_taken(training_options, write_options, tmp_path, monkeypatch):
    """As srun would start it; a script stands in for Slurm's scontrol."""
    (tmp_path / 'scontrol').write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostname node[1-2]" ] && echo localhost\n')
    (tmp_path / 'scontrol').chmod(0o755)
    opt = training_options('kd', dist_params={'port': free_port()}, train={'total_iter': 2})
    command = [sys.executable, '-m', 'mipkd_sr.train', '-opt', str(write_options(opt)), '--launcher', 'slurm']
    processes = []
    for rank in (0, 1):
        slurm = {'SLURM_PROCID': str(rank), 'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2', 'SLURM_NODELIST': 'node[1-2]'}
        path = {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}
        environment = ENVIRONMENT | slurm | path
        processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert '2 process(es) on cpu' in said[0]
    assert state(tmp_path, 2)['samples'] == 8


@pytest.mark.parametrize('is_train', [True, False])
def test_each_process_takes_the_gpu_of_its_local_rank(is_train, training_options, write_options, monkeypatch):
    taken, opt = [], training_options(num_gpu='auto')
    if not is_train:
        datasets = {'test': opt['datasets']['val']}
        opt = {name: opt[name] for name in ('name', 'scale', 'network_g', 'num_gpu')} | {'datasets': datasets}
    opt = load_options(write_options(opt), is_train).data
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'set_device', taken.append)
    monkeypatch.setattr(distributed, '_join', lambda backend, timeout: taken.append(backend))
    monkeypatch.setattr(torch.distributed, 'get_rank', lambda: 6)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 8)
    for name, value in {
        'RANK': '6',
        'LOCAL_RANK': '2',
        'WORLD_SIZE': '8',
        'MASTER_ADDR': 'localhost',
        'MASTER_PORT': '1',
    }.items():
        monkeypatch.setenv(name, value)
    distributed.start('pytorch', opt)
    assert taken == [2, 'nccl']
    assert (opt['num_gpu'], opt['rank'], opt['world_size'], opt['dist']) == (1, 6, 8, True)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus_train_as_one_with_twice_the_batch(training_options, write_options, tmp_path):
    opt = training_options('kd', 'mipkd', 'dukd', num_gpu='auto', train={'tf32': False})
    opt['train']['optim_g'] = {'type': 'SGD', 'lr': 1e-3}
    train_on_two(write_options(opt, 'two.yml'))
    opt['name'] = 'one'
    opt['datasets']['train']['batch_size_per_gpu'] = 4
    assert main(['-opt', str(write_options(opt, 'one.yml'))]) == 0
    one = load_file(tmp_path / 'experiments' / 'one' / 'models' / 'net_g_latest.pth')['params']
    for name, value in state(tmp_path, 4)['networks']['params'].items():
        assert torch.allclose(value, one[name], rtol=0, atol=1e-5), name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'WORLD_SIZE': None}, "'pytorch' was given, but WORLD_SIZE of the launcher is absent; use torchrun."),
        ({'MASTER_ADDR': None, 'MASTER_PORT': None}, 'but MASTER_ADDR, MASTER_PORT of the launcher is absent'),
        ({'RANK': 'x'}, "RANK of the environment must be a whole number, not 'x'."),
        ({'RANK': '2'}, 'RANK is 2, but WORLD_SIZE is 2.'),
        ({'LOCAL_RANK': '-1'}, "LOCAL_RANK of the environment must be a whole number, not '-1'."),
    ],
)
def test_launcher_variables_that_are_half_set_are_one_sentence(changes, message, monkeypatch):
    variables = {'RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '1', 'LOCAL_RANK': '0'}
    for name, value in (variables | changes).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(OptionError) as error:
        distributed.start('pytorch', {'num_gpu': 0})
    assert message in str(error.value)


def test_losing_touch_with_the_others_is_one_sentence():
    with pytest.raises(RunError, match='another process has ended, or has not answered for 30 minutes'), \
            distributed.in_touch({'dist_params': {'timeout': 30}}):  # fmt: skip
        raise RuntimeError('[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer')
    with pytest.raises(RuntimeError, match='a bug'), distributed.in_touch({}):
        raise RuntimeError('a bug')
