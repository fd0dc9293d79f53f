"""Degradations as a run trains, images without ground truth, and adversarial terms."""

import random
import re
import subprocess
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import vgg_arch
from basicsr.metrics import calculate_niqe, calculate_psnr
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils import DiffJPEG
from basicsr.utils import USMSharp as BasicSRsUSMSharp
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main as command
from mipkd_sr.data.degradations import RealESRGANDegradation, USMSharp, build_degradation, degrade
from mipkd_sr.data.feeding import feed
from mipkd_sr.data.mixing import collate, place
from mipkd_sr.data.stream import StreamSampler
from mipkd_sr.distill.objective import ImageObjective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.evaluation.evaluate import evaluate
from mipkd_sr.imresize import imresize
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.models import build_model
from mipkd_sr.options.reading import read_options
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, ROOT, SCALE, STUDENT, TEACHER, experiment, launch, same, smooth_image, state

FIRST = {
    'resize_prob': [0.2, 0.7, 0.1], 'resize_range': [0.4, 1.5], 'gaussian_noise_prob': 0.5, 'noise_range': [1, 30],
    'poisson_scale_range': [0.05, 3], 'gray_noise_prob': 0.4, 'jpeg_range': [30, 95],
}  # fmt: skip
SECOND = {
    'second_blur_prob': 0.8, 'resize_prob2': [0.3, 0.4, 0.3], 'resize_range2': [0.5, 1.2], 'gaussian_noise_prob2': 0.5,
    'noise_range2': [1, 25], 'poisson_scale_range2': [0.05, 2.5], 'gray_noise_prob2': 0.4, 'jpeg_range2': [30, 95],
}  # fmt: skip
CPU = torch.device('cpu')


def hr_batch(count: int, side: int = 96) -> dict[str, torch.Tensor]:
    images = np.stack([smooth_image(side, side, seed) for seed in range(count)]) / 255.0
    kernels = torch.rand(3, count, 21, 21)
    one, two, three = (kernel / kernel.sum((1, 2), keepdim=True) for kernel in kernels)
    gt = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return {'gt': gt, 'kernel1': one, 'kernel2': two, 'sinc_kernel': three, 'seed': torch.arange(count) + 7}


def test_sharpening_in_rows_and_columns_is_basicsrs():
    images = hr_batch(2, 60)['gt'].contiguous() + 0.2 * torch.rand(2, 3, 60, 60)
    ours = USMSharp()(images)
    torch.testing.assert_close(ours, BasicSRsUSMSharp()(images), rtol=0, atol=2e-6)
    assert (ours - images).abs().max() > 0.05
    assert USMSharp()(torch.full((1, 3, 16, 16), 0.4)).sub(0.4).abs().max() < 1e-6  # a patch smaller than the blur


def test_the_degradation_is_basicsrs_to_the_last_bit():
    """But for the sharpening, which is theirs to rounding."""
    theirs = RealESRGANModel.__new__(RealESRGANModel)
    theirs.opt = {**FIRST, **SECOND, 'scale': 2, 'gt_size': 48}
    theirs.is_train, theirs.device = True, 'cpu'
    theirs.jpeger, theirs.usm_sharpener = DiffJPEG(differentiable=False), USMSharp()
    theirs._dequeue_and_enqueue = lambda: None
    ours, batch = RealESRGANDegradation(**FIRST, **SECOND), hr_batch(1)
    for seed in range(8):  # both noises, all resizings, both orders at the end
        seed_everything(seed)
        theirs.feed_data(batch)
        lq, gt = degrade({**batch, 'seed': torch.tensor([seed])}, ours, 2, 48, CPU)
        assert torch.equal(lq, theirs.lq)
        assert torch.equal(gt, theirs.gt)


def test_a_sample_is_degraded_alike_in_any_batch_and_draws_nothing_from_the_run():
    ours, batch = RealESRGANDegradation(**FIRST, **SECOND), hr_batch(3)
    seed_everything(1)
    expected = (random.random(), np.random.rand(), torch.rand(2))
    seed_everything(1)
    whole = degrade(batch, ours, 2, 48, CPU)
    assert same(expected, (random.random(), np.random.rand(), torch.rand(2)))
    for number in range(3):
        alone = degrade({name: value[number : number + 1] for name, value in batch.items()}, ours, 2, 48, CPU)
        assert all(torch.equal(one, all_[number : number + 1]) for one, all_ in zip(alone, whole, strict=True))
    assert not torch.equal(whole[0][0], whole[0][1])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'noise_range': [30, 1]}, 'noise_range must be two numbers from 0 to 255, the smaller first'),
        ({'jpeg_range2': [30, 101]}, 'jpeg_range2 must be'),
        ({'resize_prob': [0, 0, 0]}, 'resize_prob must be three probabilities'),
        ({'resize_range': [1.2, 1.5]}, 'resize_range must hold 1'),
    ],
)
def test_a_range_that_is_empty_is_refused(changes, message):
    with pytest.raises(OptionError, match=f'degradation: {message}'):
        build_degradation({'type': 'RealESRGANDegradation', **FIRST, **changes})


@pytest.fixture
def realesrgan(pairs, training_options, monkeypatch):
    """BasicSR's train_realesrgan_x4plus.yml, its keys and values, but small; under a teacher."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1))
    monkeypatch.setattr(vgg_arch.vgg, 'vgg19', lambda pretrained: type('VGG', (), {'features': deepcopy(features)}))
    adam = {'type': 'Adam', 'lr': 1e-4, 'weight_decay': 0, 'betas': [0.9, 0.99]}
    blur = {'blur_kernel_size': 21, 'kernel_list': ['iso', 'aniso'], 'kernel_prob': [0.6, 0.4], 'sinc_prob': 0.1}
    blur |= {'blur_sigma': [0.2, 3], 'betag_range': [0.5, 4], 'betap_range': [1, 2]}
    train = {'name': 'DF2K+OST', 'type': 'RealESRGANDataset', 'dataroot_gt': str(pairs / 'HR'), 'final_sinc_prob': 0.8}
    train |= blur | {f'{name}2': value for name, value in blur.items()}
    train |= {'gt_size': 32, 'use_hflip': True, 'use_rot': False, 'batch_size_per_gpu': 1, 'prefetch_mode': None}
    opt = training_options('kd', model_type='RealESRGANModel')
    opt['datasets'] = {'train': {**train, 'io_backend': {'type': 'disk'}}}
    opt['train'] |= {'total_iter': 2, 'ema_decay': 0.999, 'optim_g': dict(adam), 'optim_d': dict(adam)}
    opt['train'] |= {'net_d_iters': 1, 'net_d_init_iters': 0}
    opt['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    opt['train']['perceptual_opt'] = {'type': 'PerceptualLoss', 'layer_weights': {'conv1_2': 1}, 'style_weight': 0}
    opt['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4, 'skip_connection': True}
    opt |= {'l1_gt_usm': True, 'percep_gt_usm': True, 'gan_gt_usm': False, **FIRST, **SECOND, 'queue_size': 180}
    opt['gt_size'] = 32
    opt['logger']['save_checkpoint_freq'] = 1
    del opt['val']
    return opt


@pytest.mark.parametrize('kind', ['RealESRGANModel', 'RealESRNetModel'])
def test_basicsrs_own_file_trains_under_a_teacher_and_resumes_exactly(kind, realesrgan, write_options, tmp_path):
    if is_net := kind == 'RealESRNetModel':
        for place, keys in (
            (realesrgan, ('network_d', 'l1_gt_usm', 'percep_gt_usm', 'gan_gt_usm')),
            (realesrgan['train'], ('optim_d', 'net_d_iters', 'net_d_init_iters', 'gan_opt', 'perceptual_opt')),
        ):
            for key in keys:
                del place[key]
        realesrgan |= {'model_type': kind, 'gt_usm': True}
    file = write_options(realesrgan)
    assert main(['-opt', str(file)]) == 0
    whole = state(tmp_path, 2)
    for left in experiment(tmp_path).rglob('*2.*'):
        left.unlink()
    resumed = ['path:resume_state=' + str(experiment(tmp_path) / 'training_states' / '1.state')]
    assert main(['-opt', str(file), '--force_yml', *resumed]) == 0
    again = state(tmp_path, 2)
    for key in ('networks', 'objectives', 'optimizers', 'schedulers', 'extra'):
        assert same(again[key], whole[key]), key
    if is_net:
        assert len(whole['optimizers']) == 1
        return
    assert any('weight_u' in name for name in whole['extra']['net_d'])  # what spectral norms know
    assert len(whole['optimizers']) == 2
    assert [name for name in whole['objectives'] if 'vgg' in name] == []


def test_the_keys_of_realesrgan_stand_where_they_are_used(realesrgan, write_options):
    opt = load_options(write_options(realesrgan), True).data
    assert opt['degradation'] == {'type': 'RealESRGANDegradation', **FIRST, **SECOND, 'sharpen': True}
    sharpened = [opt['train'][f'{name}_opt']['sharpen'] for name in ('pixel', 'perceptual', 'gan')]
    assert sharpened == [True, True, False]
    assert 'queue_size' not in opt


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'blur_kernel_size': 20}, 'blur_kernel_size must be odd'),
        ({'blur_sigma2': [3, 0.2]}, 'blur_sigma2 must be two numbers'),
        ({'kernel_prob': [1]}, 'kernel_prob must have a probability for each'),
        ({'gt_size': 512}, "gt_size: is 512, but BasicSR's patches have 400"),
        ({'blur_sgima': [0.2, 3]}, 'blur_sgima: is not a key'),
    ],
)
def test_a_data_set_of_degraded_images_is_checked(realesrgan, changes, message, write_options, capsys):
    realesrgan['datasets']['train'] |= changes
    assert main(['-opt', str(write_options(realesrgan))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('place', 'changes', 'message'),
    [
        (
            'train',
            {'type': 'UnpairedImageDataset'},
            "degradation: needs 'kernel1' of each sample",
        ),
        (
            'train',
            {'type': 'PairedImageDataset', 'lq': True},
            'degradation: is for HR images alone, but the training set',
        ),
        ('val', {'name': 'v', 'type': 'UnpairedImageDataset'}, 'datasets:val: has HR images alone'),
        ('val', {'name': 'v', 'type': 'RealESRGANDataset'}, 'datasets:val: has HR images alone'),
    ],
)
def test_a_degradation_and_a_set_that_do_not_fit_are_refused(
    place, changes, message, realesrgan, pairs, write_options, capsys
):
    keys = ('name', 'dataroot_gt', 'gt_size', 'batch_size_per_gpu')
    one = {key: value for key, value in realesrgan['datasets']['train'].items() if key in keys} | changes
    one |= {'dataroot_lq': str(pairs / 'LR_x2')} if one.pop('lq', False) else {}
    realesrgan['datasets'][place] = one if place == 'train' else {**changes, 'dataroot_gt': str(pairs / 'HR')}
    assert main(['-opt', str(write_options(realesrgan))]) == 2
    assert message in capsys.readouterr().err


def test_a_discriminators_step_is_basicsrs(realesrgan, write_options, tmp_path):
    realesrgan['train'] |= {'ema_decay': 0, 'perceptual_opt': None, 'kd_opt': None}
    realesrgan |= {'network_t': None, 'l1_gt_usm': False}
    realesrgan['path']['pretrain_network_t'] = None
    opt = load_options(write_options(realesrgan), True).data | {'dist': False, 'rank': 0, 'world_size': 1}
    ours = build_model(opt)
    theirs = SRGANModel.__new__(SRGANModel)
    theirs.net_g, theirs.net_d = deepcopy(ours.net_g), deepcopy(ours.bare_net_d)
    theirs.optimizer_g = torch.optim.Adam(theirs.net_g.parameters(), 1e-4, betas=(0.9, 0.99))
    theirs.optimizer_d = torch.optim.Adam(theirs.net_d.parameters(), 1e-4, betas=(0.9, 0.99))
    theirs.cri_pix, theirs.cri_gan, theirs.cri_perceptual = nn.L1Loss(), ours.cri_gan, None
    theirs.net_d_iters, theirs.net_d_init_iters, theirs.ema_decay, theirs.opt = 1, 0, 0, {'dist': False}
    for step in (1, 2):
        gt = torch.rand(2, 3, 32, 32)
        lq = imresize(gt, 1 / SCALE)
        ours.feed_data({'lq': lq, 'gt': gt})
        theirs.lq, theirs.gt = lq, gt
        for model in (ours, theirs):
            model.optimize_parameters(step)
    for one, other in ((ours.net_g, theirs.net_g), (ours.bare_net_d, theirs.net_d)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    for name, value in theirs.log_dict.items():
        if name.startswith('l_d'):
            assert float(ours.logs[name]) == pytest.approx(value, rel=1e-4)


def a_step(objectives: dict[str, Any]) -> DistillStep:
    torch.manual_seed(2)
    student, teacher = build_network(STUDENT), build_network(TEACHER)
    for objective in objectives.values():
        objective.attach(student, teacher, 8, SCALE)
    return DistillStep(student, FrozenTeacher(teacher), objectives, 10, 0)


def test_terms_that_need_hr_see_the_samples_that_have_it():
    """The loss is the mean over samples of what each has, and so is its gradient, in one part or in two."""
    lq, gt = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 16, 16)
    has_gt = [True, False, False, True]
    blind = gt.clone()
    blind[1:3] = torch.nan
    terms = {'pixel': ImageObjective('l_pix', nn.L1Loss()), 'kd': LogitsKDLoss(), 'dukd': DUKDLoss(zoom_out=False)}
    step = a_step(terms)
    found = step(lq, blind, 1, has_gt=has_gt)
    rows = torch.tensor(has_gt)
    sr = step.student(lq)
    assert found.losses['l_pix'].item() == pytest.approx((sr - gt)[rows].abs().mean().item() / 2, rel=1e-5)
    assert found.losses['l_kd'].item() == pytest.approx(
        (sr - step.teachers['teacher'](lq, []).sr).abs().mean().item(), rel=1e-5
    )
    all_of_them = step(lq, gt, 1).losses['l_zoom_in']  # the same draws for each sample as where all have HR
    first, last = (step(lq, gt, 1, has_gt=[n == own for n in range(4)]).losses['l_zoom_in'] for own in (0, 3))
    assert found.losses['l_zoom_in'].item() == pytest.approx((first + last).item(), rel=1e-5)
    assert found.losses['l_zoom_in'] < all_of_them
    torch.stack(list(found.losses.values())).sum().backward()
    whole = [parameter.grad.clone() for parameter in step.student.parameters()]
    step.student.zero_grad()
    for part in (slice(0, 2), slice(2, 4)):
        losses = step(lq[part], blind[part], 1, (part.start, 4), has_gt=has_gt[part]).losses
        (torch.stack(list(losses.values())).sum() / 2).backward()
    for one, other in zip(whole, step.student.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one, rtol=1e-4, atol=1e-6)


def test_a_batch_of_several_kinds_is_fed_in_its_order():
    gt = torch.rand(3, 3, 16, 16)
    samples = [
        {'lq': torch.full((3, 8, 8), 0.1), 'lq_path': 'a'},
        {'gt': gt[1], 'gt_path': 'b', 'seed': 1},
        {'lq': torch.full((3, 8, 8), 0.3), 'gt': gt[2], 'lq_path': 'c', 'gt_path': 'c'},
        {'lq': torch.full((3, 8, 8), 0.4), 'lq_path': 'd'},
    ]
    fed = feed(collate(samples), build_degradation(None), SCALE, 16, CPU)
    assert fed.names == ['a', 'b', 'c', 'd']
    assert fed.has_gt == [False, True, True, False]
    assert fed.lq[[0, 2, 3], 0, 0, 0].tolist() == pytest.approx([0.1, 0.3, 0.4])
    assert torch.equal(fed.gt[1:3], gt[1:3])
    assert fed.gt[[0, 3]].isnan().all()
    exact = imresize(gt[1:2], Fraction(1, SCALE))
    torch.testing.assert_close(fed.lq[1:2], exact.clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)


def test_sets_are_mixed_evenly_and_two_processes_read_what_one_reads():
    shares = [Fraction(1, 4), Fraction(3, 4)]
    order = [place(sample, shares) for sample in range(24)]
    for of in (0, 1):
        assert [number for own, number in order if own == of] == list(range(24 // 4 * (1 if of == 0 else 3)))
    for first in range(20):
        assert sum(own == 0 for own, _ in order[first : first + 4]) == 1
    sets = [(5, shares[0]), (7, shares[1])]
    arguments = {'first_iter': 1, 'total_iter': 6, 'seed': 3, 'mixed': sets}
    one = [sample for batch in StreamSampler(12, 8, **arguments) for sample in batch]
    two = [list(StreamSampler(12, 4, rank=rank, world_size=2, **arguments)) for rank in (0, 1)]
    assert [sample for a, b in zip(*two, strict=True) for sample in (*a, *b)] == one
    assert {index for _, index in one} == set(range(12))
    later = StreamSampler(12, 8, **{**arguments, 'first_iter': 4})
    assert [sample for batch in later for sample in batch] == one[24:]


def mixed_options(training_options: Any, pairs: Path, *terms: str, weight: float = 1) -> dict[str, Any]:
    opt = training_options(*terms)
    paired = opt['datasets']['train'] | {'batch_size_per_gpu': 4}
    photos = {'name': 'photos', 'type': 'UnpairedImageDataset', 'dataroot_lq': str(pairs / 'LR_x2'), 'weight': weight}
    opt['datasets']['train'] = [paired, photos]
    opt['train']['total_iter'] = 2
    opt['logger']['save_checkpoint_freq'] = 1
    return opt


def test_a_mixed_run_resumes_exactly_and_in_parts_is_as_at_once(pairs, training_options, write_options, tmp_path):
    opt = mixed_options(training_options, pairs, 'dukd')
    assert main(['-opt', str(write_options(opt))]) == 0
    whole = state(tmp_path, 2)
    (experiment(tmp_path) / 'training_states' / '2.state').unlink()
    assert main(['-opt', str(tmp_path / 'options.yml'), '--auto_resume']) == 0
    for key in ('networks', 'optimizers'):
        assert same(state(tmp_path, 2)[key], whole[key])
    opt['name'] = 'parts'
    opt['datasets']['train'][0]['batch_size_per_gpu'] = 2
    opt['train']['accumulation_steps'] = 2
    assert main(['-opt', str(write_options(opt))]) == 0
    parts = torch.load(tmp_path / 'experiments' / 'parts' / 'models' / 'net_g_2.pth')['params']
    for name, value in whole['networks']['params'].items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-5)


def test_two_processes_and_two_parts_train_both_networks_as_one_at_once(
    pairs, training_options, write_options, tmp_path
):
    """Paired, LR-only and HR-only samples, and a discriminator; the batch is 12 each time."""
    opt = mixed_options(training_options, pairs, 'kd', 'dukd')
    hr_only = {'name': 'hr', 'type': 'UnpairedImageDataset', 'dataroot_gt': str(pairs / 'HR'), 'weight': 1}
    opt['datasets']['train'].append(hr_only)
    opt |= {
        'model_type': 'GANDistillModel',
        'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4},
    }
    opt['train'] |= {'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}}
    opt['train'] |= {'optim_g': {'type': 'SGD', 'lr': 1e-2}, 'optim_d': {'type': 'SGD', 'lr': 1e-2}}
    found = {}
    for name, batch, parts in (('one', 12, 1), ('parts', 6, 2), ('two', 6, 1)):
        opt['name'], opt['train']['accumulation_steps'] = name, parts
        opt['datasets']['train'][0]['batch_size_per_gpu'] = batch
        file = write_options(opt, f'{name}.yml')
        if name == 'two':
            command = launch(2, '-m', 'mipkd_sr.train', '-opt', file, '--launcher', 'pytorch')
            done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert main(['-opt', str(file)]) == 0
        states = (load_file(tmp_path / 'experiments' / name / 'training_states' / f'{step}.state') for step in (1, 2))
        found[name] = [one['networks']['params'] | one['extra']['net_d'] for one in states]
    for name, value in found['one'][1].items():
        for other in ('parts', 'two'):
            torch.testing.assert_close(found[other][1][name], value, rtol=0, atol=1e-6, msg=f'{other}: {name}')
        if name.endswith(('weight', 'weight_orig', 'weight_u')):
            assert not torch.equal(found['one'][0][name], value), name


@pytest.mark.parametrize(
    ('terms', 'changes', 'message'),
    [
        (('kd',), {}, 'train:pixel_opt: needs HR images, which no training set has'),
        (('dukd',), {'pixel_opt': None}, 'train:dukd_opt:zoom_in: needs HR images'),
        (('kd',), {'pixel_opt': None, 'kd_opt': {'type': 'LogitsKDLoss', 'gate': 4}}, 'train:kd_opt: needs HR images'),
    ],
)
def test_a_term_without_data_is_refused_at_the_start(
    terms, changes, message, pairs, training_options, write_options, capsys
):
    opt = mixed_options(training_options, pairs, *terms)
    opt['datasets']['train'] = {**opt['datasets']['train'][0], **opt['datasets']['train'][1], 'dataroot_gt': None}
    opt['train'] |= changes
    file = write_options(opt)
    for arguments in ([], ['--dry_run']):
        assert main(['-opt', str(file), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_share_of_less_than_a_sample_is_refused(pairs, training_options, write_options, capsys):
    opt = mixed_options(training_options, pairs, 'kd', weight=0.1)
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'datasets:train:weight: gives a set 0.0909 of the samples' in capsys.readouterr().err


def test_hr_images_alone_are_enough(pairs, training_options, write_options, tmp_path):
    opt = training_options('dukd')
    opt['datasets']['train'] |= {'type': 'UnpairedImageDataset', 'dataroot_lq': None}
    assert main(['-opt', str(write_options(opt))]) == 0


def test_a_teacher_of_another_scale_is_resized(training_options, write_options, tmp_path):
    torch.manual_seed(3)
    big = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 4}
    net = build_network(big)
    torch.save({'params_ema': net.state_dict()}, tmp_path / 'big.pth')
    opt = training_options('kd', network_t=None, path={'pretrain_network_t': str(tmp_path / 'big.pth')})
    opt['network_t'] = big
    full = load_options(write_options(opt), True).data | {'dist': False, 'rank': 0, 'world_size': 1}
    model = build_model(full)
    lq = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.net_t(lq), imresize(net(lq), Fraction(1, 2)))
    assert main(['-opt', str(tmp_path / 'options.yml')]) == 0


def test_features_of_a_teacher_of_another_scale_are_refused_by_its_name(
    training_options, write_options, tmp_path, capsys
):
    opt = training_options('kd', path={'pretrain_network_t': str(tmp_path / 'big.pth')})
    opt['network_t'] |= {'upscale': 4}
    torch.save({'params': build_network(opt['network_t']).state_dict()}, tmp_path / 'big.pth')
    opt['train']['fitnet_opt'] = {'type': 'FitNetLoss', 'positions': 2}
    assert main(['-opt', str(write_options(opt))]) == 2
    error = capsys.readouterr().err
    assert 'StagedEDSR, the teacher, has no head, body and tail, which FitNetLoss needs: it is of another' in error


RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 4}
SRVGG = {'type': 'SRVGGNetCompact', 'num_feat': 4, 'num_conv': 2, 'upscale': 4, 'act_type': 'prelu'}
PUBLISHED = {
    'RealESRGAN_x2plus': (RRDB | {'scale': 2}, 'params_ema', ['body.0.rdb1.conv5.weight', 'conv_hr.bias']),
    'realesr-general-x4v3': (SRVGG, 'params', ['body.0.weight', 'body.1.weight', 'body.6.bias']),
}
"""As Real-ESRGAN's files are: the network, where its weights stand, and some of their names."""


@pytest.mark.parametrize('name', PUBLISHED)
def test_real_esrgans_networks_teach(name, training_options, write_options, tmp_path, capsys):
    network, key, names = PUBLISHED[name]
    weights = build_network(network).state_dict()
    assert weights.keys() >= set(names)
    torch.save({key: weights}, tmp_path / 'teacher.pth')
    opt = training_options('kd', network_t=network, path={'pretrain_network_t': str(tmp_path / 'teacher.pth')})
    opt['network_t'] = network
    assert main(['-opt', str(write_options(opt))]) == 0
    opt['train']['fitnet_opt'] = {'type': 'FitNetLoss', 'positions': 2}
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'the teacher, has no head, body and tail, which FitNetLoss needs' in capsys.readouterr().err
    del opt['train']['fitnet_opt']
    opt['network_t'] = next(other for other, *_ in PUBLISHED.values() if other is not network)
    assert main(['-opt', str(write_options(opt))]) == 2
    assert re.search(
        r'pretrain_network_t: .*teacher.pth holds another network than this .* give the file', capsys.readouterr().err
    )


def test_a_file_of_perceptual_weights_that_is_none_is_named(realesrgan, write_options, tmp_path, monkeypatch, capsys):
    (tmp_path / 'vgg.pth').write_text('x')
    realesrgan['train']['perceptual_opt']['vgg_file'] = str(tmp_path / 'vgg.pth')
    assert main(['-opt', str(write_options(realesrgan))]) == 2
    assert 'train:perceptual_opt' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['real/srvgg_x4', 'unlabelled/edsr_x2'])
def test_the_recipes_take_steps(name, pairs, write_options, tmp_path):
    opt = read_options(ROOT / 'options' / 'train' / f'{name}.yml').data
    for network, changes in (('network_g', {'num_feat': 4}), ('network_t', {'num_feat': 4, 'num_block': 1})):
        opt[network] |= changes
    opt['network_t'] |= {'num_grow_ch': 4} if opt['network_t']['type'] == 'RRDBNet' else {}
    torch.save({'params': build_network(opt['network_t']).state_dict()}, tmp_path / 'teacher.pth')
    opt['path']['pretrain_network_t'] = str(tmp_path / 'teacher.pth')
    train = opt['datasets']['train']
    train[next(key for key in train if key.startswith('dataroot'))] = str(pairs / 'HR')
    train |= {'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0, 'gt_size': 32}
    opt['train']['total_iter'] = 1
    opt |= {'num_gpu': 0}
    assert main(['-opt', str(write_options(opt))]) == 0


def test_validation_pairs_are_the_same_ones_each_time(realesrgan, pairs, write_options, tmp_path, capsys):
    file = write_options(realesrgan)
    for out in ('a', 'b'):
        assert command(['degrade', str(pairs / 'HR'), '-opt', str(file), '--out', str(tmp_path / out)]) == 0
    made = {path.relative_to(tmp_path / 'a'): path.read_bytes() for path in (tmp_path / 'a').rglob('*.png')}
    assert made == {path.relative_to(tmp_path / 'b'): path.read_bytes() for path in (tmp_path / 'b').rglob('*.png')}
    assert len(made) == 10
    lr = cv2.imread(str(tmp_path / 'a' / 'LR_x2' / 'wave0.png'))
    assert lr.shape == (24, 24, 3)
    assert np.array_equal(cv2.imread(str(tmp_path / 'a' / 'HR' / 'wave0.png')), cv2.imread(str(pairs / 'HR/wave0.png')))
    assert command(['degrade', str(pairs / 'HR'), '-opt', str(file), '--out', str(tmp_path / 'a')]) == 2
    assert 'is there already' in capsys.readouterr().err


def test_photographs_are_measured_without_hr():
    lq, device = torch.rand(1, 3, 120, 120), torch.device('cpu')
    nets = {'student': build_network({**STUDENT}), 'teacher': build_network({**TEACHER})}
    metrics = {
        'niqe': {'type': 'calculate_niqe', 'crop_border': 2},
        'psnr': {'type': 'calculate_psnr', 'crop_border': 2},
    }
    seen: dict[str, np.ndarray] = {}
    rows = evaluate(
        nets,
        [{'lq': lq, 'lq_path': ['a.png']}],
        metrics,
        device,
        lambda name, _, sr: seen.update({name: sr}),
        'teacher',
    )
    assert rows['student'].keys() == {'a'}
    assert rows['student']['a'].keys() == {'niqe', 'psnr_to_teacher'}
    assert rows['student']['a']['niqe'] == pytest.approx(calculate_niqe(seen['student'], 2))
    expected = calculate_psnr(seen['student'], seen['teacher'], 2)
    assert rows['student']['a']['psnr_to_teacher'] == pytest.approx(expected)
