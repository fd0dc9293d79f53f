"""DCKD's two objectives against a composition by hand, and the hook by which its history follows the student."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mipkd_sr.archs import build_network
from mipkd_sr.archs.vqgan import VQGAN, load_vqgan
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.student_history import History
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.losses import dckd_loss
from mipkd_sr.losses.dckd_loss import NOISE, DistributionMappingLoss, DynamicContrastiveLoss, add_noise
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.ranks import BatchDraws
from mipkd_sr.train import main
from tests.conftest import STUDENT, TEACHER, experiment, same, state
from tests.gradients import tiny_vqgan


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(dckd_loss, 'load_vqgan', tiny_vqgan)


@pytest.fixture
def batch():
    return torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.rand(2, 3, 32, 32, dtype=torch.float64)


def step_of(loss) -> DistillStep:
    student, teacher = build_network(STUDENT).double(), FrozenTeacher(build_network(TEACHER).double())
    loss.attach(student, teacher.net, 16, 2)
    loss._vqgan[0].double()
    return DistillStep(student, teacher, {'dckd': loss}, 10, 1)


def walk(vqgan: VQGAN, images):
    """VQGAN's levels by hand: the first residual block of each, and the latent map."""

    def norm(x, layer):
        return F.group_norm(x, layer.num_groups, layer.weight, layer.bias, 1e-6)

    def conv(x, layer, **options):
        return F.conv2d(x, layer.weight, layer.bias, **options)

    def residual(x, block):
        inner = norm(x, block.norm1)
        inner = conv(inner * inner.sigmoid(), block.conv1, padding=1)
        inner = norm(inner, block.norm2)
        inner = conv(inner * inner.sigmoid(), block.conv2, padding=1)
        return inner + (conv(x, block.nin_shortcut) if hasattr(block, 'nin_shortcut') else x)

    def attention(x, layer):
        b, c, h, w = x.shape
        q, k, v = (conv(norm(x, layer.norm), getattr(layer, name)).reshape(b, c, h * w) for name in 'qkv')
        weights = (q.transpose(1, 2) @ k / c**0.5).softmax(2)
        return x + conv((v @ weights.transpose(1, 2)).reshape(b, c, h, w), layer.proj_out)

    encoder, firsts = vqgan.encoder, []
    x = conv(images, encoder.conv_in, padding=1)
    for number, level in enumerate(encoder.down):
        for index, block in enumerate(level.block):
            x = residual(x, block)
            if index == 0:
                firsts.append(x)
            if number == len(encoder.down) - 1:
                x = attention(x, level.attn[index])
        if number < len(encoder.down) - 1:
            x = conv(F.pad(x, (0, 1, 0, 1)), level.downsample.conv, stride=2)
    x = residual(attention(residual(x, encoder.mid.block_1), encoder.mid.attn_1), encoder.mid.block_2)
    x = norm(x, encoder.norm_out)
    return firsts, conv(conv(x * x.sigmoid(), encoder.conv_out, padding=1), vqgan.quant_conv)


def test_the_contrastive_loss_by_hand(batch, monkeypatch):
    lq, gt = batch
    noise = [torch.rand_like(lq), torch.rand_like(lq)]
    waiting = list(noise)
    monkeypatch.setattr(dckd_loss, 'add_noise', lambda images, draws: waiting.pop(0))
    loss = DynamicContrastiveLoss(0.3, negatives=2)
    step = step_of(loss)
    loss.history.net.load_state_dict(build_network(STUDENT).state_dict())  # another student
    past = copy.deepcopy(loss.history.net)
    sr = step.student(lq)
    with torch.no_grad():
        others = [step.teachers['teacher'].net(lq), past(lq), past(noise[0]), past(noise[1])]
        other_features = [walk(loss._vqgan[0], 2 * image - 1)[0] for image in others]
    own = walk(loss._vqgan[0], 2 * sr - 1)[0]
    expected = 0.0
    for level, weight in enumerate((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)):
        for sample in range(2):
            near, *far = ((own[level][sample] - features[level][sample]).abs().mean() for features in other_features)
            expected = expected + 0.3 * weight / 2 * near / (sum(far) + 1e-7)
    found = step(lq, gt, 1).losses['l_dcl']
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    weight = step.student.conv_first.weight
    (a,), (b,) = torch.autograd.grad(found, weight), torch.autograd.grad(expected, weight)
    assert torch.allclose(a, b, rtol=1e-7, atol=1e-14)


def test_the_distribution_mapping_by_hand(batch):
    loss = DistributionMappingLoss(0.5)
    step = step_of(loss)
    lq, gt = batch
    vqgan = loss._vqgan[0]
    words = vqgan.quantize.embedding.weight
    sr = step.student(lq)
    logs = []
    for image in (sr, step.teachers['teacher'].net(lq)):
        z = walk(vqgan, 2 * image - 1)[1].permute(0, 2, 3, 1).reshape(-1, 1, words.shape[1])
        logs.append((-(z - words).square().sum(-1)).log_softmax(1))
    expected = -0.5 * (logs[1].exp().detach() * logs[0]).sum(1).mean()
    found = step(lq, gt, 1).losses['l_dm']
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    weight = step.student.conv_first.weight
    (a,), (b,) = torch.autograd.grad(found, weight), torch.autograd.grad(expected, weight)
    assert a.abs().sum() > 0
    assert torch.allclose(a, b, rtol=1e-7, atol=1e-14)


def test_noise_is_as_strong_as_it_says_and_grey_for_half(batch):
    lq = torch.full((400, 3, 16, 16), 0.5, dtype=torch.float64)
    noise = add_noise(lq, BatchDraws(3, torch.device('cpu'))) - lq
    sigma = noise.std((1, 2, 3))
    assert NOISE[0] * 0.7 < sigma.min() < NOISE[0] * 3
    assert NOISE[1] * 0.9 < sigma.max() < NOISE[1] * 1.2
    is_grey = (noise[:, 0] == noise[:, 1]).all(-1).all(-1)
    assert 0.4 < is_grey.double().mean() < 0.6
    assert add_noise(torch.ones(9, 3, 4, 4), BatchDraws(1, torch.device('cpu'))).max() <= 1


def test_a_history_follows_when_it_is_time_and_only_then():
    net = build_network(STUDENT)
    loss = DynamicContrastiveLoss(decay=0.1, intervals=[2, 3], interval_length=4)
    loss.attach(net, None, 16, 2)
    before = {name: value.clone() for name, value in loss.history.net.state_dict().items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    moves = []
    for iteration in range(1, 13):
        was = loss.history.net.conv_first.bias.clone()
        loss.after_step(net, iteration)
        if not torch.equal(was, loss.history.net.conv_first.bias):
            moves.append(iteration)
    assert moves == [2, 4, 6, 9, 12]
    history = History(net, 0.25)
    history.net.load_state_dict(before)
    history.follow(net)
    for name, parameter in net.named_parameters():
        expected = 0.25 * before[name] + 0.75 * parameter
        assert torch.allclose(history.net.get_parameter(name), expected, rtol=0, atol=1e-6)


def test_a_history_takes_buffers_as_they_are_and_stays_frozen_in_evaluation_mode():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    history = History(net, 0.5)
    net(torch.rand(4, 3, 5, 5))
    history.follow(net)
    assert torch.equal(history.net[1].running_mean, net[1].running_mean)
    assert not history.train().net.training
    assert not any(parameter.requires_grad for parameter in history.parameters())


def options(training_options, **train):
    dckd = {
        'dcl_opt': {'type': 'DynamicContrastiveLoss', 'intervals': [2]},
        'dm_opt': {'type': 'DistributionMappingLoss'},
    }
    return training_options('kd', train={**dckd, 'total_iter': 6, **train}, logger={'save_checkpoint_freq': 3})


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_resuming_with_a_history_is_exact(ema, training_options, write_options, tmp_path):
    file = write_options(options(training_options, ema_decay=ema))
    assert main(['-opt', str(file)]) == 0
    end = state(tmp_path, 6)
    histories = [
        load_file(experiment(tmp_path) / 'training_states' / f'{i}.state')['objectives'][
            'dcl.history.net.conv_first.bias'
        ]
        for i in (3, 6)
    ]
    assert not torch.equal(*histories)
    (experiment(tmp_path) / 'training_states' / '6.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(state(tmp_path, 6), end)


def test_the_hook_is_called_once_a_step_with_what_is_tested(training_options, write_options, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        DynamicContrastiveLoss, 'after_step', lambda self, student, iteration: seen.append((iteration, student))
    )
    opt = options(training_options, accumulation_steps=2, ema_decay=0.5, total_iter=2)
    models = []
    from mipkd_sr.models.distill_model import DistillModel

    init = DistillModel.__init__
    monkeypatch.setattr(DistillModel, '__init__', lambda self, o: (init(self, o), models.append(self))[0])
    assert main(['-opt', str(write_options(opt))]) == 0
    assert [iteration for iteration, _ in seen] == [1, 2]
    assert all(student is models[0].net_g_ema for _, student in seen)


def test_a_skipped_step_leaves_student_and_history_finite(training_options, write_options, tmp_path, monkeypatch):
    forward = DynamicContrastiveLoss.forward

    def broken(self, step_state):
        losses = forward(self, step_state)
        return {'l_dcl': losses['l_dcl'] * float('nan')} if round(6 * step_state.progress) == 2 else losses

    monkeypatch.setattr(DynamicContrastiveLoss, 'forward', broken)
    assert main(['-opt', str(write_options(options(training_options)))]) == 0
    end = state(tmp_path, 6)
    assert all(torch.isfinite(value).all() for value in end['objectives'].values())
    assert all(torch.isfinite(value).all() for value in end['networks']['params'].values())


def test_a_students_file_and_the_optimizer_have_nothing_of_it(training_options, write_options, tmp_path):
    assert main(['-opt', str(write_options(options(training_options)))]) == 0
    end = state(tmp_path, 6)
    assert end['networks']['params'].keys() == build_network(STUDENT).state_dict().keys()
    assert len(end['optimizers'][0]['state']) == len(list(build_network(STUDENT).parameters()))
    assert {name.split('.')[0] for name in end['objectives']} == {'dcl'}


def test_vqgans_weights_are_asked_for_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match='give the path of taming-transformers'):
        load_vqgan(None)
    with pytest.raises(ValueError, match='cannot be read'):
        load_vqgan(tmp_path / 'no.ckpt')
    torch.save({'state_dict': {'encoder.conv_in.weight': torch.zeros(3)}}, tmp_path / 'other.ckpt')
    with pytest.raises(ValueError, match=r'other\.ckpt does not hold VQGAN .* no such encoder\.conv_in\.weight'):
        load_vqgan(tmp_path / 'other.ckpt')


def test_vqgan_loads_under_its_authors_names_with_whatever_else_the_file_holds(tmp_path):
    net = VQGAN()
    names = set(net.state_dict())
    assert {'encoder.down.4.attn.1.proj_out.bias', 'encoder.down.2.block.0.nin_shortcut.weight'} <= names
    assert {'encoder.mid.attn_1.q.weight', 'quant_conv.bias', 'quantize.embedding.weight'} <= names
    file = tmp_path / 'last.ckpt'
    torch.save({'state_dict': {**net.state_dict(), 'decoder.conv_in.bias': torch.zeros(1)}, 'epoch': 3}, file)
    loaded = load_vqgan(file)
    assert same(dict(loaded.state_dict()), dict(net.state_dict()))
    assert not loaded.training
