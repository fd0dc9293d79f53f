"""The methods the papers compare with: each value against an independent computation in double precision."""

import itertools

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mipkd_sr.archs import build_network
from mipkd_sr.archs.slicing import slice_teacher
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.losses import csd_loss
from mipkd_sr.losses.at_loss import ATLoss
from mipkd_sr.losses.crosskd_loss import CrossKDLoss
from mipkd_sr.losses.csd_loss import CSDLoss
from mipkd_sr.losses.fakd_loss import FAKDLoss, affinity_distance
from mipkd_sr.losses.fitnet_loss import FitNetLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.losses.rkd_loss import RKDLoss, relations
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.train import main
from tests.conftest import NETWORKS, STUDENT, TEACHER

METHODS = {
    'FitNet': FitNetLoss(positions=2),
    'AT': ATLoss(positions=2),
    'RKD': RKDLoss(positions=2),
    'FAKD': FAKDLoss(positions=2),
    'CrossKD': CrossKDLoss(),
}
FILE_OPTIONS = {
    'fitnet': {'type': 'FitNetLoss', 'positions': 2},
    'at': {'type': 'ATLoss', 'positions': 2},
    'rkd': {'type': 'RKDLoss'},
    'fakd': {'type': 'FAKDLoss', 'positions': 2},
    'crosskd': {'type': 'CrossKDLoss'},
}


@pytest.fixture
def batch():
    return torch.rand(4, 3, 8, 8), torch.rand(4, 3, 16, 16)


@pytest.mark.parametrize(('squared', 'power'), [(False, 1), (True, 2)])
def test_logits_kd_is_the_mean_distance_of_the_outputs(batch, squared, power):
    step = step_of(LogitsKDLoss(3, squared=squared))
    losses = step(*batch, 1).losses
    with torch.no_grad():
        difference = step.student(batch[0]).double() - step.teachers['teacher'].net(batch[0]).double()
    expected = 3 * np.mean(np.abs(difference.numpy()) ** power)
    assert losses['l_kd'].item() == pytest.approx(expected, rel=1e-5)


def step_of(loss, kind='EDSR'):
    if kind == 'EDSR':
        student, teacher = build_network(STUDENT), FrozenTeacher(build_network(TEACHER))
    else:
        opt = {'type': kind, **NETWORKS[kind], 'upscale': 2}
        width = 'embed_dim' if kind == 'SwinIR' else 'num_feat'
        student, teacher = build_network(opt), FrozenTeacher(build_network(opt | {width: 16}))
    loss.attach(student, teacher.net, 8, 2)
    return DistillStep(student, teacher, {'method': loss}, 10, 1)


def features(step, lq):
    """The features after the units that two positions name, in double precision, by hand."""
    step.double()
    step.teachers['teacher'].net.double()
    found = []
    for net, places in ((step.student, (1, 2)), (step.teachers['teacher'].net, (2, 4))):
        feature, maps = net.conv_first((lq.double() - net.mean) * 255), []
        for index, block in enumerate(net.body, 1):
            feature = block(feature)
            if index in places:
                maps.append(feature)
        found.append(maps)
    return list(zip(*found, strict=True))


def single_precision(step, batch):
    losses = step(*batch, 1).losses
    return {name: value.item() for name, value in losses.items()}


def test_fitnet(batch):
    loss = FitNetLoss(2.0, positions=2)
    step = step_of(loss)
    value = single_precision(step, batch)['l_fitnet']
    expected = 0
    for regressor, (f_s, f_t) in zip(loss.regressors, features(step, batch[0]), strict=True):
        size_s, size_t = (f.detach().square().mean().sqrt() for f in (f_s, f_t))
        mapped = torch.einsum('bchw,oc->bohw', f_s / size_s, regressor.weight[:, :, 0, 0])
        mapped = size_t * (mapped + regressor.bias[:, None, None])
        expected += 2 * ((mapped - f_t) ** 2).mean() / (f_t**2).mean()
    assert value == pytest.approx(expected.item(), rel=1e-4)
    assert isinstance(step_of(FitNetLoss(positions=2)).objectives['method'].regressors[0], nn.Conv2d)


def test_fitnet_as_written_is_not_divided(batch):
    loss = FitNetLoss(positions=2, normalize=False)
    step = step_of(loss)
    value = single_precision(step, batch)['l_fitnet']
    pairs = zip(loss.regressors, features(step, batch[0]), strict=True)
    expected = sum(((regressor(f_s) - f_t) ** 2).mean() for regressor, (f_s, f_t) in pairs)
    assert value == pytest.approx(expected.item(), rel=1e-4)


def test_at(batch):
    step = step_of(ATLoss(1000.0, positions=2))
    value = single_precision(step, batch)['l_at']
    expected = 0.0
    for pair in features(step, batch[0]):
        maps = [(f**2).sum(1).flatten(1).detach().numpy() for f in pair]  # the sum's scale goes with the norm
        maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
        expected += 1000 * ((maps[0] - maps[1]) ** 2).mean()
    assert value == pytest.approx(expected, rel=1e-3)


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def relations_by_loops(embedding):
    e = embedding.flatten(1).double().detach().numpy()
    n = len(e)
    distances = np.array([[np.linalg.norm(a - b) for a in e] for b in e])
    angles = np.zeros((n, n, n))
    for j, i, k in itertools.permutations(range(n), 3):
        a, b = e[i] - e[j], e[k] - e[j]
        angles[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return distances / distances[distances > 0].mean(), angles * (1 - np.eye(n))[None]


def test_rkd_relations_are_those_of_loops_over_all_pairs_and_triplets():
    embedding = torch.randn(5, 3, 4, 4) + 100  # far from the origin, where inner products cancel
    for ours, expected in zip(relations(embedding), relations_by_loops(embedding), strict=True):
        assert np.allclose(ours.numpy(), expected, atol=1e-6)


def test_rkd(batch):
    step = step_of(RKDLoss(25.0, 50.0, positions=2))
    values = single_precision(step, batch)
    distance = angle = 0.0
    for f_s, f_t in features(step, batch[0]):
        (d_s, a_s), (d_t, a_t) = relations_by_loops(f_s), relations_by_loops(f_t)
        distance += 25 * huber(d_s - d_t).mean()
        angle += 50 * huber(a_s - a_t).mean()
    assert values == pytest.approx({'l_rkd_d': distance, 'l_rkd_a': angle}, rel=1e-3)


def affinity(feature):
    flat = feature.flatten(2)
    flat = flat / flat.norm(dim=1, keepdim=True)
    return flat.transpose(1, 2) @ flat


def test_fakd(batch):
    step = step_of(FAKDLoss(0.5, positions=2))
    value = single_precision(step, batch)['l_fakd']
    expected = sum(0.5 * (affinity(f_s) - affinity(f_t)).abs().mean() for f_s, f_t in features(step, batch[0]))
    assert value == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('rows', [1, 3, 7, 30, 100])
def test_fakd_in_pieces_has_the_value_and_gradient_of_the_whole(rows):
    f_s = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    f_t = torch.randn(2, 7, 5, 6, dtype=torch.float64)
    whole = (affinity(f_s) - affinity(f_t)).abs().mean()
    (expected,) = torch.autograd.grad(whole, f_s)
    pieces = affinity_distance(f_s, f_t, elements=rows * 2 * 30)
    (gradient,) = torch.autograd.grad(pieces, f_s)
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-15)


def test_fakd_never_holds_more_of_the_matrix_than_it_is_allowed():
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
            return out

    f_s = torch.randn(3, 2, 40, 40, requires_grad=True)
    with Sizes():
        affinity_distance(f_s, torch.randn(3, 2, 40, 40), elements=50_000).backward()
    assert 40_000 < max(sizes) <= 50_000 < 1600**2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_fakd_of_half_precision_features_is_computed_in_single_precision(dtype):
    f_s, f_t = (torch.randn(2, channels, 5, 6).to(dtype).requires_grad_() for channels in (4, 7))
    with torch.autocast('cpu', dtype):
        value = affinity_distance(f_s, f_t)
    whole = (affinity(f_s.double()) - affinity(f_t.double())).abs().mean()
    assert value.item() == pytest.approx(whole.item(), rel=1e-6)
    (expected,) = torch.autograd.grad(whole, f_s)
    value.backward()
    assert torch.allclose(f_s.grad, expected, rtol=1e-2)
    assert f_t.grad is None


def test_crosskd(batch):
    loss = CrossKDLoss(0.3)
    step = step_of(loss)
    value = single_precision(step, batch)['l_cross']
    lq = batch[0].double()
    step.double()
    student, teacher = step.student, step.teachers['teacher'].net.double()
    (head_s, context_s), (head_t, context_t) = student.head(lq), teacher.head(lq)
    map_s, map_t = student.body[0](head_s), teacher.body[1](teacher.body[0](head_t))
    size_s, size_t = map_s.abs().mean(), map_t.abs().mean()
    from_student = teacher.body[3](teacher.body[2](size_t * loss.to_teacher[0](map_s / size_s)))
    from_teacher = student.body[1](size_s * loss.to_student[0](map_t / size_t))
    images = teacher.tail(from_student, context_t), student.tail(from_teacher, context_s)
    expected = sum(0.3 * (image - teacher(lq)).abs().mean() for image in images)
    assert value == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('name', METHODS)
def test_the_gradient_reaches_the_student_alone(name, kind, batch):
    options = {'FitNet': FitNetLoss, 'AT': ATLoss, 'RKD': RKDLoss, 'FAKD': FAKDLoss, 'CrossKD': CrossKDLoss}
    step = step_of(options[name](positions=2), kind)
    losses = step(*batch, 1).losses
    sum(losses.values()).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in step.student.parameters())
    assert all(parameter.grad is None for parameter in step.teachers['teacher'].net.parameters())
    assert all(parameter.grad is not None for parameter in step.objectives.parameters())


@pytest.mark.parametrize('name', FILE_OPTIONS)
def test_training_and_resuming_keep_projections_out_of_the_students_file(
    name, training_options, write_options, tmp_path
):
    opt = training_options('kd', train={f'{name}_opt': FILE_OPTIONS[name]})
    opt['datasets']['train']['batch_size_per_gpu'] = 3
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    folder = tmp_path / 'experiments' / 'tiny'
    state = load_file(folder / 'training_states' / '4.state')
    assert load_file(folder / 'models' / 'net_g_4.pth')['params'].keys() == build_network(STUDENT).state_dict().keys()
    assert bool(state['objectives']) == (name in ('fitnet', 'crosskd'))
    (folder / 'training_states' / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    again = load_file(folder / 'training_states' / '4.state')
    assert all(
        torch.equal(value, again['networks']['params'][key]) for key, value in state['networks']['params'].items()
    )
    assert all(torch.equal(value, again['objectives'][key]) for key, value in state['objectives'].items())


@pytest.fixture
def small_vgg(monkeypatch):
    """VGG19's layers, a few channels wide and random: the same indices, none of the weights."""

    def features(file=None):
        torch.manual_seed(3)
        layers, width = [], 3
        for index, layer in enumerate(torchvision.models.vgg19(weights=None).features[:30]):
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.Conv2d(width, 4, 3, padding=1))
                nn.init.kaiming_normal_(layers[-1].weight)  # else the images fade on their way through 13 layers
                width = 4
            elif isinstance(layer, nn.MaxPool2d) and index > 10:
                layers.append(nn.Identity())  # the test's images are small
            else:
                layers.append(layer)
        return nn.Sequential(*layers)

    monkeypatch.setattr(csd_loss, 'vgg19_features', features)
    return features


def test_csd(small_vgg, batch):
    student, teacher = build_network(STUDENT), FrozenTeacher(build_network({**STUDENT, 'num_feat': 12}))
    loss = CSDLoss(0.7, negatives=2)
    loss.attach(student, teacher.net, 8, 2)
    step = DistillStep(student, teacher, {'csd': loss}, 10, 1)
    value = single_precision(step, batch)['l_csd']

    vgg, lq = small_vgg().double(), batch[0].double()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()

    def layers(images):
        feature, found = ((images.movedim(1, -1) - mean) / std).movedim(-1, 1), []
        for index, layer in enumerate(vgg):
            feature = layer(feature)
            if index in (1, 6, 11, 20, 29):
                found.append(feature.clone())
        return found

    s, t = layers(student.double()(lq)), layers(teacher.net.double()(lq))
    n = layers(F.interpolate(lq, scale_factor=2, mode='bicubic'))
    expected = 0
    for weight, f_s, f_t, f_n in zip([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1], s, t, n, strict=True):
        for i in range(4):
            apart = sum((f_n[(i - shift) % 4] - f_s[i]).abs().mean() for shift in (1, 2))
            expected += 0.7 * weight * (f_t[i] - f_s[i]).abs().mean() / apart / 4
    assert value == pytest.approx(expected.item(), rel=1e-3)
    student.float()
    teacher.net.float()
    sum(step(*batch, 1).losses.values()).backward()
    assert any(parameter.grad.any() for parameter in student.parameters())
    assert not step.objectives.state_dict()


def test_csd_trains_and_resumes_and_its_vgg_is_in_no_file(small_vgg, training_options, write_options, tmp_path):
    opt = training_options('kd', network_g={'num_block': 4}, train={'csd_opt': {'type': 'CSDLoss'}})
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    states = tmp_path / 'experiments' / 'tiny' / 'training_states'
    state = load_file(states / '4.state')
    assert not state['objectives']
    (states / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    again = load_file(states / '4.state')['networks']['params']
    assert all(torch.equal(value, again[key]) for key, value in state['networks']['params'].items())


def test_csd_without_its_weights_says_so_in_one_sentence(training_options, write_options, tmp_path, capsys):
    (tmp_path / 'vgg.pth').write_text('no weights')
    opt = training_options('kd', train={'csd_opt': {'type': 'CSDLoss', 'vgg_file': str(tmp_path / 'vgg.pth')}})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'train:csd_opt: ' in (error := capsys.readouterr().err)
    assert 'vgg.pth is not a checkpoint' in error


@pytest.mark.parametrize('kind', NETWORKS)
def test_slice_initialisation_takes_the_first_channels(kind):
    width = 'embed_dim' if kind == 'SwinIR' else 'num_feat'
    opt = {'type': kind, **NETWORKS[kind], 'upscale': 2}
    student, teacher = build_network(opt | {width: 8}), build_network(opt | {width: 16})
    slice_teacher(teacher.state_dict(), student)
    whole = dict(teacher.named_parameters())
    for name, value in student.named_parameters():
        if '.qkv.' in name:  # queries, keys and values are joined: each gives its first channels
            part, full = value.shape[0] // 3, whole[name].shape[0] // 3
            for i in range(3):
                expected = whole[name][i * full : i * full + part]
                expected = expected[:, : value.shape[1]] if value.dim() == 2 else expected
                assert torch.equal(value[i * part : (i + 1) * part], expected)
        else:
            assert torch.equal(value, whole[name][tuple(slice(size) for size in value.shape)]), name


def test_a_slice_as_wide_as_the_teacher_is_the_teacher():
    teacher = build_network(TEACHER)
    student = build_network(TEACHER)
    slice_teacher(teacher.state_dict(), student)
    lq = torch.rand(1, 3, 8, 8)
    assert torch.equal(student(lq), teacher(lq))


def test_slicing_another_depth_is_refused_in_one_sentence(training_options, write_options, capsys):
    opt = training_options('kd', path={'init_network_g': 'teacher_slice'})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'path:init_network_g: ' in (error := capsys.readouterr().err)
    assert 'same architecture and depth' in error


def test_a_run_starts_from_the_slice(training_options, write_options, tmp_path, teacher_file):
    opt = training_options('kd', network_g={'num_block': 4}, path={'init_network_g': 'teacher_slice'})
    opt['train']['optim_g']['lr'] = 0.0
    assert main(['-opt', str(write_options(opt))]) == 0
    weights = load_file(tmp_path / 'experiments' / 'tiny' / 'models' / 'net_g_latest.pth')['params']
    teacher = load_file(teacher_file)['params']
    assert torch.equal(weights['body.0.conv1.weight'], teacher['body.0.conv1.weight'][:8, :8])
