"""The switches for precision and speed: each does what it says, and no more."""

import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional as F

from mipkd_sr.archs.edsr_arch import StagedEDSR
from mipkd_sr.models import DistillModel, build_model
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.train import main
from tests.conftest import experiment, same, state


def model_of(opt, write_options):
    """The model of a training run before its first step."""
    options = load_options(write_options(opt), is_train=True).data
    options.update(rank=0, world_size=1, dist=False, num_gpu=0)
    seed_everything(options['manual_seed'])
    return build_model(options)


def batch_of(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lq, gt = torch.rand(size, 3, 8, 8, generator=generator), torch.rand(size, 3, 16, 16, generator=generator)
    return {'lq': lq, 'gt': gt, 'lq_path': [f'image{i}.png' for i in range(size)]}


def take_steps(model, steps=1, size=4):
    for iteration in range(1, steps + 1):
        model.feed_data(batch_of(size, iteration))
        model.optimize_parameters(iteration)
    return model


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_mixed_precision_computes_in_16_bits_and_keeps_weights_and_losses_in_32(
    precision, training_options, write_options
):
    losses, types = {}, []
    for name in ('fp32', precision):
        mipkd = {'drop_probability': 0}
        opt = training_options('kd', 'mipkd', 'dukd', train={'precision': name, 'mipkd_opt': mipkd})
        model = model_of(opt, write_options)
        model.net_g.conv_last.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
        model.net_t.conv_last.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
        take_steps(model)
        losses[name] = model.losses
        assert all(parameter.dtype == torch.float32 for parameter in model.step.parameters())
    assert set(types) == {torch.float32, {'bf16': torch.bfloat16, 'fp16': torch.float16}[precision]}
    assert losses['fp32'].keys() == losses[precision].keys()
    for name, value in losses['fp32'].items():
        assert losses[precision][name].dtype == torch.float32
        assert losses[precision][name].item() == pytest.approx(value.item(), rel=0.05), name
        assert losses[precision][name].item() != value.item()


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_the_teacher_alone_in_16_bits_labels_almost_as_before(precision, training_options, write_options):
    """The student's arithmetic, and the paths that gradients take through the teacher, stay in single precision."""
    losses, types = {}, {}
    for name in (None, precision):
        mipkd = {'drop_probability': 0, 'student_probability': 0}
        train = {'teacher_precision': name, 'mipkd_opt': mipkd}
        model = model_of(training_options('kd', 'mipkd', 'dukd', train=train), write_options)
        types[name] = seen = {'student': set(), 'teacher': [], 'outputs': set()}
        model.net_g.conv_last.register_forward_hook(lambda _, __, output, to=seen: to['student'].add(output.dtype))
        model.net_t.conv_last.register_forward_hook(
            lambda _, inputs, output, to=seen: to['teacher'].append((inputs[0].requires_grad, output.dtype))
        )
        passed = model.step.teachers['teacher'](torch.rand(1, 3, 8, 8), [1])
        seen['outputs'] = {passed.sr.dtype, passed.features[1].dtype, passed.context.dtype}
        take_steps(model)
        losses[name] = model.losses
    half = {'bf16': torch.bfloat16, 'fp16': torch.float16}[precision]
    assert types[precision]['student'] == types[None]['student'] == {torch.float32}
    assert types[precision]['outputs'] == {torch.float32}
    assert set(types[None]['teacher']) == {(False, torch.float32), (True, torch.float32)}
    assert set(types[precision]['teacher']) == {(False, half), (True, torch.float32)}
    for name, value in losses[None].items():
        assert losses[precision][name].item() == pytest.approx(value.item(), rel=0.05), name


def test_fp16s_loss_scale_is_in_the_state_and_resuming_is_exact(training_options, write_options, tmp_path):
    file = write_options(training_options('kd', 'mipkd', train={'precision': 'fp16', 'ema_decay': 0.9}))
    assert main(['-opt', str(file)]) == 0
    undisturbed = state(tmp_path, 4)
    assert undisturbed['scaler']['scale'] > 1
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(state(tmp_path, 4), undisturbed)


@pytest.mark.parametrize('switch', ['channels_last', 'compile'])
@pytest.mark.filterwarnings('ignore')  # torch.compile's own
def test_switches_that_change_no_result(switch, training_options, write_options):
    if switch == 'compile' and shutil.which('g++') is None:
        pytest.skip('torch.compile needs a C++ compiler, and there is no g++')
    sgd = {'type': 'SGD', 'lr': 0.01}
    results = []
    for value in (False, True):
        methods = ('kd',) if switch == 'compile' else ('kd', 'mipkd', 'dukd')  # zooming makes sizes vary
        opt = training_options(*methods, model_type='DistillModel')
        opt['train'].update({switch: value, 'optim_g': sgd})
        if 'mipkd' in methods:
            opt['train']['mipkd_opt'] |= {'drop_probability': 0, 'student_probability': 0}  # computed again, too
        model = take_steps(model_of(opt, write_options), 2)
        results.append({**{name: loss.detach() for name, loss in model.losses.items()}, **model.net_g.state_dict()})
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], rtol=1e-4, atol=1e-6), name
    if switch == 'channels_last':
        weight = model.net_g.body[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
    else:
        assert model.compiled == 'true'
    assert all('_orig_mod' not in name for name in model.net_g.state_dict())


def refuse(*_, **__):
    raise BackendCompilerFailed(torch.compile, TypeError('no order'), None)


def test_a_compiler_that_fails_is_one_sentence(training_options, write_options, monkeypatch, capsys):
    monkeypatch.setattr(DistillModel, 'optimize_parameters', refuse)
    assert main(['-opt', str(write_options(training_options()))]) == 4
    said = capsys.readouterr().err
    assert "error: torch.compile failed (backend='compile' raised: TypeError: no order" in said
    assert said.endswith('); set train:compile=false.\n')
    assert 'Traceback' not in said


def test_accumulated_steps_have_the_gradient_of_the_whole_batch(training_options, write_options):
    models = []
    for parts in (1, 4):
        opt = training_options('kd', train={'accumulation_steps': parts, 'optim_g': {'type': 'SGD', 'lr': 0.01}})
        opt['train']['optim_g'].pop('betas')
        models.append(take_steps(model_of(opt, write_options), 3, size=8))
    one, four = models
    for name, value in one.net_g.state_dict().items():
        assert torch.allclose(value, four.net_g.state_dict()[name], rtol=0, atol=1e-6), name
    for name, value in one.losses.items():
        assert four.losses[name].item() == pytest.approx(value.item(), rel=1e-4)


def test_a_second_step_has_the_first_ones_gradient_and_its_own(training_options, write_options):
    """Against both steps of SGD by hand, as DUKD's authors' program takes them; the average moves once, after both."""
    dukd = {'zoom_in': False, 'augmentations': {}}
    train = {'second_step': ['dukd_opt'], 'ema_decay': 0.9, 'ema_warmup': False, 'dukd_opt': dukd}
    opt = training_options('kd', 'dukd', train={**train, 'optim_g': {'type': 'SGD', 'lr': 0.1}})
    opt['train']['optim_g'].pop('betas')
    model = model_of(opt, write_options)
    student, teacher, batch = deepcopy(model.net_g), deepcopy(model.net_t), batch_of(4, 1)
    small = torch.stack([imresize(lq, 1 / 2) for lq in batch['lq']])
    with torch.no_grad():
        labels, of_small = teacher(batch['lq']), teacher(small)
    before, weights = deepcopy(student.state_dict()), list(student.parameters())
    loss = F.l1_loss(student(batch['lq']), batch['gt']) + F.l1_loss(student(batch['lq']), labels)
    first = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, first, strict=True):
            weight -= 0.1 * gradient
    second = torch.autograd.grad(F.l1_loss(student(small), of_small), weights)
    with torch.no_grad():
        for weight, *gradients in zip(weights, first, second, strict=True):
            weight -= 0.1 * sum(gradients)
    take_steps(model)
    for name, value in student.state_dict().items():
        assert torch.allclose(model.net_g.state_dict()[name], value, rtol=0, atol=1e-6), name
        average = 0.9 * before[name] + 0.1 * value
        assert torch.allclose(model.net_g_ema.state_dict()[name], average, rtol=0, atol=1e-6), name
    assert set(model.losses) == {'l_pix', 'l_kd', 'l_zoom_out'}
    assert set(model.get_current_log()) >= set(model.losses)


@pytest.mark.parametrize(
    ('train', 'message'),
    [
        (
            {'second_step': ['dukd']},
            'train:second_step: must name some, and not all, of the losses: pixel_opt, kd_opt.',
        ),
        ({'second_step': ['kd_opt', 'pixel_opt']}, 'must name some, and not all, of the losses'),
        ({'second_step': ['kd_opt'], 'precision': 'fp16'}, 'train:second_step: is not defined for fp16'),
    ],
)
def test_a_second_step_that_cannot_be_is_one_sentence(train, message, training_options, write_options, capsys):
    assert main(['-opt', str(write_options(training_options('kd', train=train)))]) == 2
    assert message in capsys.readouterr().err


def test_a_step_reads_as_many_batches_as_it_accumulates(training_options, write_options, tmp_path):
    opt = training_options(train={'accumulation_steps': 3})
    assert main(['-opt', str(write_options(opt))]) == 0
    assert state(tmp_path, 4)['samples'] == 4 * 3 * 2


def test_clipping_scales_the_gradient_down_to_its_greatest_norm(training_options, write_options):
    moves = {}
    for clip in (0.0, 0.01, 1e9):
        opt = training_options('kd', 'mipkd', train={'grad_clip': clip, 'optim_g': {'type': 'SGD', 'lr': 1.0}})
        opt['train']['optim_g'].pop('betas')
        model = model_of(opt, write_options)
        before = nn.utils.parameters_to_vector(model.step.parameters()).detach().clone()
        take_steps(model)
        moves[clip] = before - nn.utils.parameters_to_vector(model.step.parameters()).detach()
    assert moves[0.01].norm().item() == pytest.approx(0.01, rel=1e-2)
    assert torch.equal(moves[0.0], moves[1e9])
    assert torch.cosine_similarity(moves[0.0], moves[0.01], dim=0).item() == pytest.approx(1, abs=1e-4)


def test_tf32_is_set_for_convolutions_and_products_alike(training_options, write_options, monkeypatch):
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for value in (True, False):
            model_of(training_options(train={'tf32': value}), write_options)
            assert [backend.allow_tf32 for backend in backends] == [value, value]
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


OPTIMIZERS = {
    'AdamW': {'lr': 1e-3, 'weight_decay': 0.01},
    'SGD': {'lr': 1e-2, 'momentum': 0.9, 'nesterov': True},
    'NAdam': {'lr': 1e-3},
    'RMSprop': {'lr': 1e-3},
    'Adam': {'lr': 1e-3, 'fused': True},
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_optimizers_by_torchs_own_names_are_torchs_own(name, training_options, write_options):
    opt = training_options()
    opt['train']['optim_g'] = {'type': name, **OPTIMIZERS[name]}
    model = model_of(opt, write_options)
    net = deepcopy(model.net_g)
    optimizer = getattr(torch.optim, name)(net.parameters(), **OPTIMIZERS[name])
    take_steps(model, 3)
    for iteration in (1, 2, 3):
        batch = batch_of(4, iteration)
        optimizer.zero_grad()
        (net(batch['lq']) - batch['gt']).abs().mean().backward()
        optimizer.step()
    for ours, theirs in zip(model.net_g.parameters(), net.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


POISONS = {
    'a NaN image': lambda batch, model: batch['gt'].__setitem__((0, 0, 3, 3), float('nan')),
    'an infinite image': lambda batch, model: batch['lq'].__setitem__((0, 0, 3, 3), float('inf')),
}


@pytest.mark.parametrize('poison', POISONS.values(), ids=POISONS)
@pytest.mark.parametrize('options', [{}, {'precision': 'fp16'}, {'optim_g': {'fused': True}}], ids=str)
def test_a_step_with_bad_numbers_is_skipped(options, poison, training_options, write_options):
    """As if it had not been: weights, optimizer and the next step are those of a run without it."""
    model = take_steps(model_of(training_options('kd', 'mipkd', train=options), write_options))
    before = {name: value.clone() for name, value in model.step.state_dict().items()}
    batch = batch_of(4, 2)
    poison(batch, model)
    model.feed_data(batch)
    model.optimize_parameters(2)
    assert same(dict(model.step.state_dict()), before)
    model.feed_data(batch_of(4, 3))
    model.optimize_parameters(3)
    assert all(torch.isfinite(value).all() for value in model.step.state_dict().values())
    assert not same(dict(model.step.state_dict()), before)


@ARCH_REGISTRY.register()
class NormedEDSR(StagedEDSR):
    """An EDSR with a BatchNorm after its first convolution."""

    def __init__(self, num_feat: int = 8, num_block: int = 2, upscale: int = 2) -> None:
        super().__init__(num_feat=num_feat, num_block=num_block, upscale=upscale)
        self.norm = nn.BatchNorm2d(num_feat)

    def head(self, lq):
        feature, context = super().head(lq)
        return self.norm(feature), context


@pytest.mark.parametrize('loss', ['CrossKDLoss', 'MiPKDLoss'])
def test_the_statistics_of_batches_are_those_of_the_networks_own_features(loss, training_options, write_options):
    """A norm in the tail, through which the teacher's and mixed features pass as well."""
    own = {'student_probability': 1, 'drop_probability': 0} if loss == 'MiPKDLoss' else {}
    opt = training_options('kd', train={'cross_opt': {'type': loss, 'positions': 2, **own}})
    model = model_of(opt, write_options)
    model.net_g.conv_after_body = nn.Sequential(model.net_g.conv_after_body, norm := nn.BatchNorm2d(8))
    alone = deepcopy(model.net_g)
    alone(batch_of(4, 1)['lq'])
    take_steps(model)
    assert norm.num_batches_tracked == 1
    assert same(dict(norm.named_buffers()), dict(alone.conv_after_body[1].named_buffers()))
    assert norm.track_running_stats


@pytest.mark.parametrize('poison', POISONS.values(), ids=POISONS)
@pytest.mark.parametrize('options', [{}, {'accumulation_steps': 2}, {'precision': 'fp16'}], ids=str)
def test_a_skipped_step_leaves_the_statistics_of_batches_alone(options, poison, training_options, write_options):
    opt = training_options('kd', train={'ema_decay': 0.9, **options})
    opt['network_g']['type'] = 'NormedEDSR'
    model = take_steps(model_of(opt, write_options))
    before = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    assert before['norm.num_batches_tracked'] == (2 if 'accumulation_steps' in options else 1)
    batch = batch_of(4, 2)
    poison(batch, model)
    model.feed_data(batch)
    model.optimize_parameters(2)
    assert same(dict(model.net_g.state_dict()), before)
    assert all(torch.isfinite(value).all() for value in model.net_g_ema.state_dict().values())
    model.feed_data(batch_of(4, 3))
    model.optimize_parameters(3)
    assert all(torch.isfinite(value).all() for value in model.net_g.state_dict().values())
    assert not torch.equal(model.net_g.norm.running_mean, before['norm.running_mean'])


def test_too_many_bad_steps_end_the_run_and_name_loss_and_images(
    training_options, write_options, tmp_path, monkeypatch, capsys
):
    """From the third iteration on the HR images are not finite; two bad steps in a row are allowed."""
    feed, fed = DistillModel.feed_data, []

    def feed_data(self, data):
        fed.append(1)
        if len(fed) >= 4:
            data['gt'][:] = np.nan
        feed(self, data)

    monkeypatch.setattr(DistillModel, 'feed_data', feed_data)
    opt = training_options('kd', train={'total_iter': 20, 'max_skipped_steps': 2})
    assert main(['-opt', str(write_options(opt))]) == 4
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert 'iteration 6 was skipped: l_pix not finite on ' in error
    assert '.png; that is 3 in a row, more than train:max_skipped_steps' in error
    assert len(fed) == 6
    assert not (experiment(tmp_path) / 'training_states' / '6.state').exists()
    assert all(torch.isfinite(value).all() for value in state(tmp_path, 4)['networks']['params'].values())


def test_a_network_that_gives_nan_writes_no_image_and_says_so(
    training_options, write_options, tmp_path, monkeypatch, capsys
):

    forward = StagedEDSR.forward
    monkeypatch.setattr(StagedEDSR, 'forward', lambda self, x: forward(self, x) * (1 if self.training else np.nan))
    assert main(['-opt', str(write_options(training_options(val={'save_img': True})))]) == 4
    assert 'wave0.png is not finite: the weights have diverged; no image was written' in capsys.readouterr().err
    assert not list((experiment(tmp_path) / 'visualization').rglob('*.png'))


@pytest.mark.parametrize(('warmup', 'decay'), [(None, 0.999), (True, 0.3), (False, 0.999)])
def test_the_averages_decay_rises_over_the_first_steps_unless_it_must_not(
    warmup, decay, training_options, write_options
):
    train = {'ema_decay': decay} | ({} if warmup is None else {'ema_warmup': warmup})
    model = model_of(training_options(train=train), write_options)
    average = {name: value.detach().double().clone() for name, value in model.net_g.named_parameters()}
    for i in range(1, 6):
        model.feed_data(batch_of(4, i))
        model.optimize_parameters(i)
        d = decay if warmup is False else min(decay, (1 + i) / (10 + i))
        for name, value in model.net_g.named_parameters():
            average[name] = d * average[name] + (1 - d) * value.detach().double()
    for name, value in model.net_g_ema.named_parameters():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6)
