"""The library: what docs/library.md shows, and the loss of a batch against a composition of its own."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from mipkd_sr import Distiller, load_student, upscale
from mipkd_sr.archs import build_network
from mipkd_sr.cli import main as mipkd
from mipkd_sr.losses import FitNetLoss, LogitsKDLoss, MiPKDLoss
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.train import main as train
from tests.conftest import ROOT, experiment, smooth_image

EXAMPLES = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/library.md').read_text(), re.DOTALL)


@pytest.mark.parametrize('code', EXAMPLES, ids=['student', 'loop'])
def test_the_page_shows_code_that_runs_as_it_stands(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('photo.png', smooth_image(20, 30, 0))
    assert len(code.splitlines()) <= 25
    exec(compile(code, 'library.md', 'exec'), {})
    made = cv2.imread('large.png')
    assert made is None or made.shape == (40, 60, 3)
    assert made is not None or (tmp_path / 'student.pth').is_file()


def networks():
    torch.manual_seed(1)
    student = build_network({'type': 'EDSR', 'num_feat': 4, 'num_block': 2, 'upscale': 2})
    return student, build_network({'type': 'EDSR', 'num_feat': 6, 'num_block': 2, 'upscale': 2})


def test_the_loss_is_the_sum_of_the_terms_and_its_gradient_reaches_the_student():
    student, teacher = networks()
    distiller = Distiller(student, teacher, [nn.L1Loss(), LogitsKDLoss()], steps=3, lq_size=8)
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    loss = distiller(lq, gt)
    with torch.no_grad():
        sr, of_teacher = student(lq), teacher(lq)
    torch.testing.assert_close(loss.detach(), (sr - gt).abs().mean() + (sr - of_teacher).abs().mean())
    assert set(distiller.losses) == {'l_l1', 'l_kd'}
    loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training


def trained(steps, distiller=None, states=None):
    torch.manual_seed(0)
    batches = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)) for _ in range(4)]
    if distiller is None:
        mipkd = MiPKDLoss(positions=2)
        mipkd.balance_by(0.5)
        distiller = Distiller(*networks(), [nn.L1Loss(), mipkd], steps=4, lq_size=8)
    optimizer = torch.optim.Adam(distiller.parameters(), 1e-3)
    if states:
        distiller.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
    for lq, gt in batches[distiller.iteration : steps]:
        optimizer.zero_grad()
        distiller(lq, gt).backward()
        optimizer.step()
    return distiller.state_dict(), optimizer.state_dict()


def test_a_training_goes_on_exactly_from_its_state_which_leaves_the_teacher_out():
    whole, halfway = trained(4), trained(2)
    resumed = trained(4, states=halfway)
    assert halfway[0]['_extra_state'] == {'iteration': 2}
    assert not any('teacher' in name for name in whole[0])
    for name, value in whole[0].items():
        assert resumed[0][name] == value if name == '_extra_state' else torch.equal(resumed[0][name], value), name


def test_it_takes_the_teacher_along_and_says_what_does_not_fit():
    student, teacher = networks()
    distiller = Distiller(student, teacher, [nn.L1Loss(), FitNetLoss(positions=2)], steps=1, lq_size=8).double()
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}
    assert distiller(torch.rand(1, 3, 8, 8).double(), torch.rand(1, 3, 16, 16).double()).dtype == torch.float64
    with pytest.raises(ValueError, match='logitskd needs a teacher'):
        Distiller(student, None, [LogitsKDLoss()], steps=1)
    with pytest.raises(ValueError, match='must have 2 times'):
        Distiller(student, nn.Upsample(scale_factor=3), [nn.L1Loss(), LogitsKDLoss()], steps=1)
    with pytest.raises(ValueError, match='head, body'):
        Distiller(nn.Upsample(scale_factor=2), teacher, [FitNetLoss()], steps=1)


def test_a_tensor_and_an_image_are_upscaled_alike():
    student = load_student(3)
    image = smooth_image(12, 17, 0)
    lq = torch.from_numpy(image).permute(2, 0, 1) / 255
    of_image, of_tensor = upscale(student, image), upscale(student, torch.stack([lq, 1 - lq]))
    assert of_tensor.shape == (2, 3, 36, 51)
    assert np.array_equal(of_image, of_tensor[0].mul(255).round().permute(1, 2, 0).numpy())
    with pytest.raises(TypeError, match='8 or 16 bits, not float64'):
        upscale(student, image / 255)


def test_a_run_is_upscaled_exported_and_tested_by_its_name(pairs, training_options, write_options, tmp_path):
    opt = training_options()
    assert train(['-opt', str(write_options(opt))]) == 0
    test = {'name': 't', 'scale': 2, 'num_gpu': 0, 'datasets': {'test': opt['datasets']['val']}}
    test |= {
        'val': {'metrics': opt['val']['metrics']},
        'networks': {'x': {'network': {'type': 'Bicubic', 'upscale': 2}}},
    }
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(test))
    folder = str(experiment(tmp_path))
    photo = str(pairs / 'LR_x2' / 'wave0.png')
    assert mipkd(['upscale', photo, '--out', str(tmp_path / 'up'), '--run', folder]) == 0
    assert (tmp_path / 'up' / 'wave0.png').is_file()
    assert mipkd(['export', '--run', folder, '--out', str(tmp_path / 'out.pth')]) == 0
    assert mipkd(['test', '-opt', str(tmp_path / 'test.yml'), '--run', 'tiny', '--root', str(tmp_path)]) == 0
    assert [*json.loads((tmp_path / 'results' / 't_tiny' / 'results.json').read_text())] == ['tiny']
    assert mipkd(['upscale', photo, '--out', str(tmp_path / 'up'), '--run', folder, '--scale', '2']) == 2


def test_a_run_is_a_student_by_its_name_its_folder_and_its_file(training_options, write_options, tmp_path, monkeypatch):
    assert train(['-opt', str(write_options(training_options()))]) == 0
    monkeypatch.chdir(tmp_path)
    folder = experiment(tmp_path)
    found = [load_student(student) for student in ('tiny', folder, folder / 'models' / 'net_g_latest.pth')]
    lq = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        first, *others = [net(lq) for net in found]
    assert all(torch.equal(first, other) for other in others)
    with pytest.raises(OptionError, match='there is no run nobody'):
        load_student('nobody')
    with pytest.raises(OptionError, match='students for 2, 3, 4'):
        load_student(5)
