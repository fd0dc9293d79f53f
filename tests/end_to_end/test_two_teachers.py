"""One option file: MiPKD, DUKD and DCKD under two teachers, with a scheduled weight and a gate."""

import json
import re
import subprocess

import pytest
import torch

from mipkd_sr.archs import build_network
from mipkd_sr.losses import dckd_loss
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, NETWORKS, ROOT, SCALE, TEACHER, experiment, launch, same, state
from tests.gradients import tiny_vqgan

SMALL_VQGAN = """
from mipkd_sr.losses import dckd_loss
from tests.gradients import tiny_vqgan

dckd_loss.load_vqgan = tiny_vqgan
"""


@pytest.fixture
def options(training_options, teacher_file, tmp_path, monkeypatch):
    monkeypatch.setattr(dckd_loss, 'load_vqgan', tiny_vqgan)
    swinir = {'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': SCALE}
    torch.save({'params': build_network(swinir).state_dict()}, tmp_path / 'swinir.pth')
    train = {
        'total_iter': 4,
        'ema_decay': 0.9,
        'kd_opt': {'schedule': {'shape': 'cosine', 'from': 1, 'to': 0, 'end': 0.5}, 'gate': 4},
        'mipkd_opt': {'teacher': 'edsr'},
        'dukd_opt': {'teacher': {'edsr': 1, 'swinir': 3}, 'zoom_out': False},
        'dcl_opt': {'type': 'DynamicContrastiveLoss', 'teacher': 'swinir', 'intervals': [2]},
        'dm_opt': {'type': 'DistributionMappingLoss', 'teacher': 'swinir'},
        'teacher_precision': {'swinir': 'bf16'},
    }
    opt = training_options('kd', 'mipkd', 'dukd', train=train)
    opt['network_t'] = {'edsr': dict(TEACHER), 'swinir': swinir}
    opt['path']['pretrain_network_t'] = {'edsr': str(teacher_file), 'swinir': 'swinir.pth'}
    return opt


def test_it_trains_resumes_exactly_and_says_how_far_each_teacher_is(options, write_options, tmp_path):
    file = write_options(options)
    assert main(['-opt', str(file)]) == 0
    end = state(tmp_path, 4)
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(state(tmp_path, 4), end)
    validations = json.loads((experiment(tmp_path) / 'validations.json').read_text())
    assert set(validations[0]) == {'iter', 'dataset', 'psnr', 'psnr_to_edsr', 'psnr_to_swinir'}
    log = ''.join(file.read_text() for file in sorted(experiment(tmp_path).glob('train_*.log')))
    assert re.findall(r'iter (\d)/4.* l_kd: ', log) == ['1']  # the weight is 0 from the middle on
    assert 'Before training, psnr' in log
    assert 'Teacher swinir is no better' in log


def test_a_dry_run_says_who_listens_to_whom(options, write_options, capsys):
    assert main(['-opt', str(write_options(options)), '--dry_run']) == 0
    said = capsys.readouterr().out
    assert re.search(r'teacher edsr: StagedEDSR, [\d,]+ parameters', said)
    assert re.search(r'teacher swinir: StagedSwinIR, [\d,]+ parameters', said)
    where = 'where the teacher is better in 4 x 4 pixels, cosine from 0% to 50% of the training, weight x 1 to 0'
    assert f'train:kd_opt: LogitsKDLoss, {where}' in said
    assert 'train:dukd_opt: DUKDLoss, from edsr (0.25), swinir (0.75)' in said
    assert 'position 1: student after unit 1 of 2, 8 x 8 x 8; teacher after unit 2 of 4, 12 x 8 x 8' in said


def test_two_processes_train_as_one_with_twice_the_batch(options, write_options, tmp_path):
    """The history of the student moves at steps 2 and 4; the processes' VQGAN is the stand-in, too.

    In the first step the history is the student itself, and the gradient of |S - H| a matter of rounding.
    """
    (tmp_path / 'small_vqgan.py').write_text(SMALL_VQGAN)
    options['import'] = ['small_vqgan']
    options['train']['dcl_opt']['schedule'] = {'shape': 'window', 'begin': 0.25}
    options['train']['optim_g'] = {'type': 'SGD', 'lr': 1e-3}
    options['train']['teacher_precision'] = None
    command = launch(2, '-m', 'mipkd_sr.train', '-opt', write_options(options, 'two.yml'), '--launcher', 'pytorch')
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = state(tmp_path, 4)
    options['name'] = 'one'
    del options['import']
    options['datasets']['train']['batch_size_per_gpu'] = 4
    assert main(['-opt', str(write_options(options, 'one.yml'))]) == 0
    one = torch.load(tmp_path / 'experiments' / 'one' / 'training_states' / '4.state', weights_only=True)
    student = {name: value for name, value in one['objectives'].items() if name.startswith('dcl.history.net.')}
    assert student.keys() == {f'dcl.history.net.{name}' for name in one['networks']['params']}
    assert not any(same(value, one['networks']['params'][name.split('.', 3)[3]]) for name, value in student.items())
    for two_of, one_of in (
        (two['networks']['params'], one['networks']['params']),
        (two['objectives'], one['objectives']),
    ):
        for name, value in one_of.items():
            assert torch.allclose(value, two_of[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'path': {'pretrain_network_t': 'one.pth'}}, r'pretrain_network_t: is one file, but network_t has several'),
        ({'path': {'pretrain_network_t': {'edsr': 'one.pth'}}}, 'pretrain_network_t:swinir: is missing'),
        ({'path': {'param_key_t': {'rcan': 'params'}}}, "param_key_t:rcan: there is no teacher 'rcan'"),
        ({'train': {'teacher_precision': {'edsr': 'fp8'}}}, "teacher_precision:edsr: there is no choice 'fp8'"),
        ({'train': {'kd_opt': {'type': 'LogitsKDLoss', 'teacher': 'rcan'}}}, "kd_opt: there is no teacher 'rcan'"),
        ({'train': {'mipkd_opt': {'type': 'MiPKDLoss'}}}, "mipkd_opt: MiPKDLoss learns from one teacher's features"),
        ({'path': {'init_network_g': 'teacher_slice'}}, 'init_network_g: needs one teacher'),
        ({'train': {'kd_opt': {'type': 'LogitsKDLoss', 'schedule': {'to': 0}}}}, 'kd_opt: schedule:from is missing'),
        ({'train': {'pixel_opt': {'type': 'L1Loss', 'gate': 1}}}, 'pixel_opt: gate is for objectives that compare'),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(changes, message, options, write_options, capsys):
    for section, entries in changes.items():
        options[section] |= entries
    assert main(['-opt', str(write_options(options))]) == 2
    assert re.search(message, capsys.readouterr().err)
