"""Weights & Biases, offline; images in TensorBoard; LPIPS and DISTS."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mipkd_sr.metrics import measure
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, ROOT, experiment, smooth_image


@pytest.mark.skipif(find_spec('wandb') is None, reason='needs wandb: pip install mipkd_sr[wandb]')
def test_a_run_is_logged_to_wandb_offline(training_options, write_options, tmp_path):
    opt = training_options(logger={'wandb': {'project': 'students', 'resume_id': 'abc123'}}, val={'images_shown': 1})
    file = write_options(opt)
    environment = ENVIRONMENT | {'WANDB_MODE': 'offline', 'PYTHONPATH': str(ROOT), 'WANDB_SILENT': 'true'}
    command = [sys.executable, '-m', 'mipkd_sr', 'train', '-opt', str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'logger:wandb:resume_id=abc123 goes on with this run' in done.stderr
    (record,) = (tmp_path / 'wandb').glob('offline-run-*-abc123/run-abc123.wandb')
    content = record.read_bytes()
    for name in (b'losses/l_pix', b'metrics/waves-val/psnr', b'students', b'waves-val/wave0'):
        assert name in content
    assert experiment(tmp_path).is_dir()


def test_a_few_images_are_shown_in_tensorboard(training_options, write_options, tmp_path):
    opt = training_options(logger={'use_tb_logger': True}, val={'images_shown': 2})
    assert main(['-opt', str(write_options(opt))]) == 0
    events = EventAccumulator(str(tmp_path / 'tb_logger' / 'tiny'), size_guidance={'images': 0})
    events.Reload()
    assert events.Tags()['images'] == ['waves-val/wave0', 'waves-val/wave1']
    shown = events.Images('waves-val/wave0')
    assert [(image.step, image.width, image.height) for image in shown] == [(2, 48, 48), (4, 48, 48)]


@pytest.mark.skipif(find_spec('piq') is None, reason='needs piq: pip install mipkd_sr[metrics]')
@pytest.mark.parametrize('name', ['lpips', 'dists'])
def test_perceptual_metrics(name):
    image = smooth_image(64, 64, 0)
    noisy = (image + np.random.default_rng(0).normal(0, 30, image.shape)).clip(0, 255).astype(np.uint8)
    opt = {'type': f'calculate_{name}', 'crop_border': 2, 'better': 'lower'}
    try:
        same = measure(opt, image, image)
    except ValueError as error:
        if 'weights cannot be downloaded' not in str(error):
            raise
        pytest.skip(str(error))
    assert same == pytest.approx(0, abs=1e-4)
    assert measure(opt, noisy, image) > 0.05
