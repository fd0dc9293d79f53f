"""What the tests share: tiny data, tiny networks, and option files over them."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import mipkd_sr.register  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import numpy as np
import pytest
import torch
import yaml
from basicsr.utils import get_root_logger
from hypothesis import HealthCheck, settings

from mipkd_sr.archs import build_network
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.ranks import BatchDraws

# a busy machine is no failure
settings.register_profile('any_speed', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('any_speed')

torch.set_num_threads(1)  # the networks are tiny, and tests run in as many processes as there are cores

get_root_logger()  # its handler keeps the stderr of now, and would keep that of the first test, which is closed with it

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / 'shared' / 'data'
SHARED_CASES = ROOT.parent / 'shared' / 'cases'
SCALE = 2
STUDENT = {'type': 'StagedEDSR', 'num_feat': 8, 'num_block': 2, 'upscale': SCALE}
TEACHER = {'type': 'StagedEDSR', 'num_feat': 12, 'num_block': 4, 'upscale': SCALE}
NETWORKS: dict[str, dict[str, Any]] = {
    'EDSR': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 4},
    'RCAN': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 3, 'num_block': 2, 'squeeze_factor': 4},
    'SwinIR': {
        'img_size': 16,
        'window_size': 8,
        'embed_dim': 12,
        'depths': [2, 2, 2],
        'num_heads': [2, 2, 2],
        'mlp_ratio': 2,
        'upsampler': 'pixelshuffle',
    },
}


METHODS: dict[str, tuple[str, ...]] = {
    'plain': (),
    'kd': ('kd',),
    'mipkd': ('kd', 'mipkd'),
    'dukd': ('kd', 'dukd'),
}
"""The objectives of each method, as ``training_options`` knows them."""

ENVIRONMENT = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
"""Of the processes that tests start."""


def launch(processes: int, *arguments: object) -> list[str]:
    """A torchrun command on this machine's CPUs."""
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    return [*run, *map(str, arguments)]


LAUNCH = """
import json, sys
from mipkd_sr.cli import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print('', codes, sep='\\n')
"""
"""Runs several commands in one process, as starting one takes seconds."""


def installed_environment(site: Path) -> dict[str, str]:
    """The environment of a process that finds the package in ``site`` and writes nothing there."""
    return ENVIRONMENT | {'PYTHONPATH': str(site), 'PYTHONDONTWRITEBYTECODE': '1'}


def run_installed(site: Path, folder: Path, *commands: Iterable[object]) -> tuple[list[int], str]:
    """Run commands of the package in ``site`` in ``folder``, one after another.

    Returns:
        Their exit codes, and what they said together.
    """
    words = json.dumps([[str(word) for word in command] for command in commands])
    arguments = [sys.executable, '-c', LAUNCH, words]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=installed_environment(site))
    assert done.returncode == 0, done.stderr
    said, codes = done.stdout.rstrip().rsplit('\n', 1)
    return json.loads(codes), said + done.stderr


def experiment(folder: Path) -> Path:
    """The folder of the run of ``training_options`` under the root ``folder``."""
    return folder / 'experiments' / 'tiny'


def state(folder: Path, iteration: int) -> dict[str, Any]:
    """A training state of that run."""
    return load_file(experiment(folder) / 'training_states' / f'{iteration}.state')


def same(a: object, b: object) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """An H x W x 3 image, 8 bits, with waves that a network can learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.1, 0.9) + y * rng.uniform(0.1, 0.9) + rng.uniform(0, 6)) for _ in range(3)]
    return (127 + 90 * np.stack(waves, -1)).round().astype(np.uint8)


@pytest.fixture(scope='session')
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five HR images of 48 x 48 pixels and their x2 LR images."""
    folder = tmp_path_factory.mktemp('pairs')
    write_pairs(((f'wave{i}', smooth_image(48, 48, i)) for i in range(5)), folder, [SCALE])
    return folder


@pytest.fixture(scope='session')
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a TEACHER."""
    file = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.manual_seed(1)
    torch.save({'params': build_network(TEACHER).state_dict()}, file)
    return file


@pytest.fixture(scope='session')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel holds, as pip would put it on the path."""
    wheels = pytest.importorskip('hatchling.builders.wheel')
    folder = tmp_path_factory.mktemp('wheel')
    (wheel,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=['standard'])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / 'site')
    return folder / 'site'


def merge(into: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


@pytest.fixture(scope='session')
def training_options(pairs: Path, teacher_file: Path) -> Callable[..., dict[str, Any]]:
    """A function that gives a tiny training run's options: plain, or with the objectives asked for."""
    data = {'type': 'PairedImageDataset', 'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR_x2')}
    losses = {
        'kd': {'kd_opt': {'type': 'LogitsKDLoss'}},
        'mipkd': {'mipkd_opt': {'type': 'MiPKDLoss', 'positions': 2, 'ae_until': 0.5}},
        'dukd': {'dukd_opt': {'type': 'DUKDLoss'}},
    }

    def options(*objectives: str, **changes: Any) -> dict[str, Any]:
        opt: dict[str, Any] = {
            'name': 'tiny',
            'scale': SCALE,
            'num_gpu': 0,
            'manual_seed': 3,
            'datasets': {
                'train': {'name': 'waves', **data, 'gt_size': 16, 'batch_size_per_gpu': 2},
                'val': {'name': 'waves-val', **data},
            },
            'network_g': dict(STUDENT),
            'path': {},
            'train': {
                'total_iter': 4,
                'optim_g': {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.99]},
                'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
                'pixel_opt': {'type': 'L1Loss'},
            },
            'val': {
                'val_freq': 2,
                'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}},
            },
            'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
        }
        if objectives:
            opt['network_t'] = dict(TEACHER)
            opt['path']['pretrain_network_t'] = str(teacher_file)
            for name in objectives:
                opt['train'].update(deepcopy(losses[name]))
        return merge(opt, changes)

    return options


@pytest.fixture
def write_options(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A function that writes options to a file in the test's own folder, which is also the run's root."""

    def write(opt: dict[str, Any], name: str = 'options.yml') -> Path:
        file = tmp_path / name
        file.write_text(yaml.safe_dump(opt, sort_keys=False))
        return file

    return write


def draws(seed: int = 0) -> BatchDraws:
    """Random numbers for samples, as a step gives them to its objectives."""
    return BatchDraws(seed, torch.device('cpu'))
