"""BasicSR's own programs as the host of our models: its parser, its loops, its data loaders."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import basicsr.utils.logger
import pytest
import torch
from basicsr.test import test_pipeline as run_basicsrs_test
from basicsr.train import train_pipeline as run_basicsrs_train
from basicsr.utils import get_root_logger

from mipkd_sr.options.hosting import complete_hosted, is_complete
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError
from tests.conftest import STUDENT, experiment


@pytest.fixture(autouse=True)
def _own_handlers_alone() -> Iterator[None]:
    """Take away what BasicSR's loop adds to the logger: its file, and a stream that ends with the test."""
    logger = get_root_logger()
    before = list(logger.handlers)
    yield
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


def hosted(opt: dict[str, Any]) -> dict[str, Any]:
    """What BasicSR's loader insists on, which has defaults here."""
    opt['datasets']['train'] |= {'num_worker_per_gpu': 0, 'pin_memory': False, 'use_hflip': True, 'use_rot': True}
    for dataset in opt['datasets'].values():
        dataset['io_backend'] = {'type': 'disk'}
    opt['val']['save_img'] = False
    return opt


def run(pipeline: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # BasicSR opens a log file when it first asks for its logger, once in a process
    monkeypatch.setattr(basicsr.utils.logger, 'initialized_logger', {})
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', str(file)])
    pipeline(str(file.parent))


def test_basicsrs_train_pipeline_runs_a_mipkd_model_to_its_end(training_options, write_options, tmp_path, monkeypatch):
    opt = hosted(training_options('kd', 'mipkd', model_type='MiPKDModel', train={'ema_decay': 0.9}))
    run(run_basicsrs_train, write_options(opt), monkeypatch)
    models = experiment(tmp_path) / 'models'
    assert {file.name for file in models.iterdir()} == {f'net_g_{n}.pth' for n in (2, 4, 'latest', 'best')}
    assert load_file(models / 'net_g_latest.pth').keys() == {'params', 'params_ema'}
    state = load_file(experiment(tmp_path) / 'training_states' / '4.state')
    assert (state['iter'], state['samples']) == (4, 8)
    log = next(experiment(tmp_path).glob('train_tiny_*.log')).read_text()
    assert ' at 4)' in log  # BasicSR validates once more after the last step, and calls it 5
    assert ' at 5)' not in log
    assert all(name in log for name in ('l_pix:', 'l_kd:', 'l_feat:', 'l_block:', 'Validation on waves-val: psnr'))
    assert log.count('The training loop is not this package') == 1


def test_basicsrs_test_pipeline_measures_our_model(pairs, training_options, write_options, tmp_path, monkeypatch):
    torch.manual_seed(0)
    opt = hosted(training_options(model_type='DistillModel'))
    run(run_basicsrs_train, write_options(opt), monkeypatch)
    weights = experiment(tmp_path) / 'models' / 'net_g_latest.pth'
    test_opt = {
        'name': 'tested',
        'model_type': 'DistillModel',
        'scale': 2,
        'num_gpu': 0,
        'manual_seed': 0,
        'datasets': {'test': opt['datasets']['val']},
        'network_g': dict(STUDENT),
        'path': {'pretrain_network_g': str(weights), 'strict_load_g': True},
        'val': {'save_img': True, 'suffix': None, 'metrics': opt['val']['metrics']},
    }
    run(run_basicsrs_test, write_options(test_opt, 'test.yml'), monkeypatch)
    log = next((tmp_path / 'results' / 'tested').glob('test_tested_*.log')).read_text()
    assert 'Validation on waves-val: psnr' in log
    images = tmp_path / 'results' / 'tested' / 'visualization' / 'waves-val'
    assert {file.name for file in images.iterdir()} == {f'wave{i}_tested.png' for i in range(5)}


def test_options_that_were_completed_are_left_alone_and_others_are_checked(training_options, write_options):
    ours = load_options(write_options(training_options('mipkd')), is_train=True).data
    assert is_complete(ours, TRAIN)
    theirs = training_options('kd') | {'is_train': True, 'auto_resume': False, 'dist': False, 'rank': 0}
    theirs['datasets']['train']['phase'] = 'train'
    assert not is_complete(theirs, TRAIN)
    complete_hosted(theirs)
    assert is_complete(theirs, TRAIN)
    assert theirs['is_train']
    assert theirs['datasets']['train']['phase'] == 'train'
    del theirs['train']['max_skipped_steps']
    theirs['train']['total_iters'] = 3
    with pytest.raises(OptionError, match=r"train:total_iters.*did you mean 'total_iter'"):
        complete_hosted(theirs)
    assert theirs['is_train']
