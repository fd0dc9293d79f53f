"""The demo, in miniature: its own data, option files and commands."""

import subprocess

import pytest
import torch

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.commands.demo import prepare
from mipkd_sr.data import build_dataset
from mipkd_sr.data.stream import single_images
from mipkd_sr.evaluation.evaluate import evaluate, mean_metrics
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.test import main as run_test
from mipkd_sr.train import main as run_train
from tests.conftest import ROOT


def test_the_demos_training_and_testing(tmp_path):
    prepare(tmp_path)
    for method in ('plain', 'kd', 'mipkd'):
        arguments = ['-opt', str(ROOT / f'options/train/demo/{method}.yml'), '--root', str(tmp_path)]
        assert run_train([*arguments, '--auto_resume', '--force_yml', 'train:total_iter=3', 'val:val_freq=10']) == 0
    assert run_test(['-opt', str(ROOT / 'options/test/demo.yml'), '--root', str(tmp_path)]) == 0
    results = tmp_path / 'results' / 'demo'
    lines = (results / 'table.md').read_text().splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:7]] == [
        'bicubic', 'teacher', 'student, plain', 'student, KD', 'student, MiPKD',
    ]  # fmt: skip
    assert (results / 'figure.png').stat().st_size > 10_000


def test_the_committed_teacher_is_small_and_better_than_bicubic(tmp_path):
    file = ROOT / 'experiments/pretrained_models/demo_teacher_x2.pth'
    assert file.stat().st_size < 1_000_000
    prepare(tmp_path)
    options = load_options(ROOT / 'options/train/demo/kd.yml', is_train=True, root=tmp_path).data
    assert options['path']['pretrain_network_t'] == str(file)  # which is not copied
    teacher = build_network(options['network_t'])
    load_weights(teacher, file)
    means = {}
    for name, net in {'teacher': teacher, 'bicubic': build_network({'type': 'Bicubic', 'upscale': 2})}.items():
        images = single_images(build_dataset(options, 'val'))
        rows = evaluate({name: net}, images, options['val']['metrics'], torch.device('cpu'))
        means[name] = mean_metrics(rows[name])['psnr']
    assert means['teacher'] > means['bicubic'] + 1


@pytest.mark.parametrize('script', ['setup.sh', 'demo.sh', 'test.sh'])
def test_shell_scripts_parse(script):
    subprocess.run(['bash', '-n', str(ROOT / 'scripts' / script)], check=True)
