"""What a look at the teacher before a training says."""

import logging

import pytest
import torch
from skimage import data
from torch import nn

from mipkd_sr.api import load_student
from mipkd_sr.data import shared_images
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.imresize import imresize
from mipkd_sr.models.teacher_check import check_teacher
from mipkd_sr.train import main
from tests.conftest import experiment, smooth_image

PSNR = {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}}


class Of(nn.Module):
    """What is done to a network, or to its output."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, lq):
        return self.run(lq)


class Loader(list):
    class dataset:
        opt = {'name': 'photographs'}  # noqa: RUF012


def photographs():
    found = Loader()
    for name, image in (('astronaut', data.astronaut()), ('coffee', data.coffee())):
        gt = torch.from_numpy(image[100:228, 100:228].copy()).permute(2, 0, 1)[None] / 255
        lq = (imresize(gt, 0.5).clamp(0, 1) * 255).round() / 255
        found.append({'lq': lq, 'gt': gt, 'lq_path': [f'{name}.png'], 'gt_path': [f'{name}.png']})
    return found


@torch.no_grad()
def warnings_for(teacher, caplog, loader=None):
    caplog.set_level(logging.WARNING)
    bicubic = Of(lambda lq: imresize(lq, 2))
    check_teacher(teacher, bicubic, loader or photographs(), PSNR, 2, torch.device('cpu'), 'teacher.pth')
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_a_teacher_that_is_right_raises_no_doubt(caplog):
    assert warnings_for(load_student(2), caplog) == []


def test_bgr_and_a_wrong_scale_are_told(caplog):
    net = load_student(2)
    tinted = torch.tensor([1.0, 1.0, 0.93]).view(1, 3, 1, 1)  # it is better given BGR, as its blue is wrong else
    exchanged = Of(lambda lq: net(lq) * tinted if lq[:, 0].mean() > lq[:, 2].mean() else net(lq))
    assert any('better with red and blue exchanged' in text for text in warnings_for(exchanged, caplog))
    caplog.clear()
    (said,) = warnings_for(Of(lambda lq: imresize(lq, 2) + 0.05 * (net(lq) - imresize(lq, 2))), caplog)
    assert 'are its options (res_scale, img_range) right?' in said


def test_images_of_other_photographs_are_told(caplog):
    first, second = photographs()
    loader = Loader([{**first, 'lq': second['lq']}, {**second, 'lq': first['lq']}])
    assert any('of one name of one photograph' in text for text in warnings_for(load_student(2), caplog, loader))


@pytest.mark.parametrize('same', [True, False])
def test_validation_on_training_images_is_told(same, training_options, write_options, tmp_path):
    opt = training_options(train={'total_iter': 1})
    if not same:
        write_pairs(((f'own{number}', smooth_image(48, 48, number)) for number in range(2)), tmp_path / 'own', [2])
        opt['datasets']['val'] |= {
            'dataroot_gt': str(tmp_path / 'own/HR'),
            'dataroot_lq': str(tmp_path / 'own/LR_x2'),
        }
    assert main(['-opt', str(write_options(opt))]) == 0
    (log,) = experiment(tmp_path).glob('train_*.log')
    assert ('images are trained on and validated on' in log.read_text()) == same
    assert shared_images([], []) == []
