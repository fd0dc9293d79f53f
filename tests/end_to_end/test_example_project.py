"""Somebody else's BasicSR project, run as they would run it: beside an installed package, with no checkout around."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from mipkd_sr.archs import build_network, check_staged
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.evaluation.evaluate import evaluate, mean_metrics
from mipkd_sr.options import importing
from mipkd_sr.runtime.checkpoint import load_file
from tests.conftest import ROOT, SHARED_DATA, installed_environment, run_installed, same, smooth_image

EXAMPLE = ROOT / 'tests' / 'example_project'
DOCUMENT = ROOT / 'docs' / 'extending.md'
ADVERSARIAL = 'options/train/adversarial.yml'


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with photographs and a teacher's checkpoint."""
    folder = tmp_path_factory.mktemp('outside') / 'project'
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'datasets' / 'HR').mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / 'datasets' / 'HR' / f'{number}.png'), smooth_image(48, 48, number))
    importing.import_packages(['my_sr'], EXAMPLE / 'train.py', 'import')
    teacher = build_network({'type': 'DenseNet', 'width': 12, 'depth': 4, 'upscale': 2})
    torch.save({'params': teacher.state_dict()}, folder / 'datasets' / 'teacher.pth')
    return folder


@pytest.fixture(scope='module')
def trained(installed: Path, project: Path) -> Path:
    """The project, after its own program and the installed command have trained its students."""
    environment = installed_environment(installed)
    command = [sys.executable, 'train.py', '-opt', 'options/train/student.yml']
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, said = run_installed(installed, project.parent, ['train', '-opt', project / ADVERSARIAL])
    assert codes == [0], said
    return project


def state_of(project: Path, name: str) -> dict[str, Any]:
    return load_file(project / 'experiments' / name / 'training_states' / '4.state')


def test_the_project_trains_tests_upscales_and_exports(installed, trained, tmp_path):
    options, run = trained / 'options', trained / 'experiments' / 'student'
    state = state_of(trained, 'student')
    assert {'mean.readers.0.weight', 'mipkd.feature_mixers.0.decoder.0.weight'} <= state['objectives'].keys()
    assert state['optimizers'][0]['param_groups'][0]['lr'] == pytest.approx(1e-3 / 2)
    assert {'psnr', 'mae', 'psnr_to_teacher'} <= state['validations'][-1].keys()
    assert 'l_zoom_in' in next(run.glob('*.log')).read_text()
    student = ['-opt', run / 'student.yml', '--weights', weights := run / 'models' / 'net_g_4.pth']
    codes, said = run_installed(
        installed,
        tmp_path,
        ['train', '-opt', options / 'train' / 'student.yml', '--dry_run'],
        ['test', '-opt', options / 'test' / 'student.yml'],
        ['upscale', trained / 'datasets' / 'HR' / '0.png', '--out', tmp_path / 'up', *student],
        ['export', *student, '--out', tmp_path / 'student.pth'],
    )
    assert codes == [0, 0, 0, 0], said
    assert 'position 1: student after unit 1 of 2, 8 x 16 x 16; teacher after unit 2 of 4, 24 x 16 x 16' in said
    assert 'PSNR / MAE' in said
    assert cv2.imread(str(tmp_path / 'up' / '0.png')).shape == (96, 96, 3)
    assert same(load_file(tmp_path / 'student.pth')['params'], load_file(weights)['params'])


def test_the_second_network_and_its_optimizer_resume_exactly(installed, trained, tmp_path):
    undisturbed = state_of(trained, 'adversarial')
    assert undisturbed['extra']['net_d'].keys() == {'0.weight', '0.bias', '2.weight', '2.bias'}
    (trained / 'experiments' / 'adversarial' / 'training_states' / '4.state').unlink()
    codes, said = run_installed(installed, tmp_path, ['train', '-opt', trained / ADVERSARIAL, '--auto_resume'])
    assert codes == [0], said
    resumed = state_of(trained, 'adversarial')
    for part in ('networks', 'objectives', 'optimizers', 'extra'):
        assert same(resumed[part], undisturbed[part]), part
    assert len(undisturbed['optimizers']) == 2


def test_its_networks_keep_the_promise(project):
    for opt in (
        {'type': 'StagedMSRResNet', 'num_feat': 8, 'num_block': 3, 'upscale': 4},
        {'type': 'DenseNet', 'upscale': 3},
        {'type': 'IMDN', 'width': 16, 'depth': 3},
    ):
        check_staged(build_network(opt))
    for scale in (2, 3, 4):
        theirs = build_network({'type': 'MSRResNet', 'num_feat': 8, 'num_block': 3, 'upscale': scale})
        ours = build_network({'type': 'StagedMSRResNet', 'num_feat': 8, 'num_block': 3, 'upscale': scale})
        ours.load_state_dict(theirs.state_dict())
        lq = torch.rand(1, 3, 9, 7)
        assert torch.equal(ours(lq), theirs(lq))


def test_imdn_has_its_published_psnr(project):
    weights, images = SHARED_DATA / 'weights' / 'IMDN_x4.pth', SHARED_DATA / 'benchmarks' / 'Set5'
    if not weights.is_file():
        pytest.skip('needs the checkpoint of IMDN and Set5')
    net = build_network({'type': 'IMDN'})
    load_weights(net, weights)
    batches = []
    for hr in sorted((images / 'HR').iterdir()):
        lq = images / 'LR_bicubic' / 'X4' / f'{hr.stem}x4{hr.suffix}'
        pair = [torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1) / 255 for file in (lq, hr)]
        height, width = pair[0].shape[-2:]
        batch = {'lq': pair[0][None], 'gt': pair[1][None, :, : 4 * height, : 4 * width]}
        batches.append(batch | {'lq_path': [str(lq)], 'gt_path': [str(hr)]})
    metric = {'psnr': {'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': True}}
    rows = evaluate({'IMDN': net}, batches, metric, torch.device('cpu'))
    assert mean_metrics(rows['IMDN'])['psnr'] == pytest.approx(32.25, abs=0.03)


FILES = sorted(
    file.relative_to(EXAMPLE).as_posix()
    for file in EXAMPLE.rglob('*')
    if file.suffix in ('.py', '.yml') and '__pycache__' not in file.parts
)


@pytest.mark.parametrize('name', FILES)
def test_the_document_shows_every_file_as_it_is(name):
    shown = dict(re.findall(r'`([\w/.]+)`:\n\n```\w+\n(.*?)```', DOCUMENT.read_text(), re.DOTALL))
    assert shown.get(name) == (EXAMPLE / name).read_text(), f'docs/extending.md does not show {name} as it is'
    assert set(shown) == set(FILES)
    assert len((EXAMPLE / name).read_text().splitlines()) < 40
