"""What an option file may say of any objective: how its weight goes, where it listens, to which teacher."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mipkd_sr.archs import build_network
from mipkd_sr.distill.gate import gated_target, teacher_is_better
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.distill.weight_schedule import Schedule, read_schedule
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.eco_loss import ECOLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.models.terms import build_term, read_teachers
from tests.conftest import STUDENT, TEACHER


def make_step(teachers=1, **objectives: Objective) -> DistillStep:
    student = build_network(STUDENT).double()
    nets = {name: build_network(TEACHER).double() for name in 'abc'[:teachers]}
    for objective in objectives.values():
        objective.attach(student, next(iter(nets.values())), 8, 2)
    frozen = {name: FrozenTeacher(net) for name, net in nets.items()}
    return DistillStep(student, frozen, objectives, total_iter=10, seed=1)


@pytest.fixture
def batch():
    return torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 16, 16, dtype=torch.float64)


@given(st.sampled_from(['linear', 'cosine']), st.floats(0, 10), st.floats(0, 10), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_starts_and_ends_where_it_says_and_stays_between(shape, first, last, one, other):
    begin, end = sorted((one, other))
    schedule = Schedule(shape, first, last, begin, end)
    values = [schedule.factor(p / 20) for p in range(1, 21)]
    ascending = values if last >= first else values[::-1]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(ascending))
    assert all(min(first, last) - 1e-9 <= value <= max(first, last) + 1e-9 for value in values)
    if begin > 0:
        assert schedule.factor(begin) == pytest.approx(first)
    if end > begin:
        assert schedule.factor(end) == pytest.approx(last)


def test_values_by_hand():
    assert Schedule('linear', 2, 0, 0.2, 0.6).factor(0.3) == pytest.approx(1.5)
    assert Schedule('cosine', 0, 1, 0, 1).factor(0.25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    window = Schedule('window', begin=0.2, end=0.5)
    assert [window.factor(p) for p in (0.1, 0.2, 0.21, 0.5, 0.51)] == [0, 0, 1, 1, 0]
    assert Schedule('linear', 0, 1, 0.5, 0.5).factor(0.5) == 0
    assert Schedule('linear', 0, 1, 0.5, 0.5).factor(0.51) == 1


@pytest.mark.parametrize(
    ('opt', 'message'),
    [
        (0.5, 'must be a mapping'),
        ({'shape': 'step', 'from': 0, 'to': 1}, "shape 'step' is not one of"),
        ({'form': 'linear'}, "no key 'form'"),
        ({'shape': 'linear', 'from': 0}, 'schedule:to is missing'),
        ({'shape': 'window', 'to': 0}, 'no meaning for a window'),
        ({'from': 0, 'to': '1'}, 'schedule:to must be a number'),
        ({'from': 0, 'to': 1, 'begin': 0.6, 'end': 0.4}, 'in order within'),
        ({'from': -1, 'to': 1}, 'must not be negative'),
    ],
)
def test_what_is_no_schedule_is_refused(opt, message):
    with pytest.raises(ValueError, match=message):
        read_schedule(opt)


def test_a_scheduled_weight_multiplies_the_loss_and_its_gradient_and_is_logged(batch):
    loss = LogitsKDLoss()
    step = make_step(pixel=ImageObjective('l_pix', nn.L1Loss()), kd=loss)
    plain = step(*batch, 3)
    loss.schedule = Schedule('linear', 1, 0)
    scheduled = step(*batch, 3)
    assert scheduled.losses['l_kd'].item() == pytest.approx(0.7 * plain.losses['l_kd'].item())
    assert scheduled.logs['weight/kd'] == pytest.approx(0.7)
    assert scheduled.losses['l_pix'].item() == plain.losses['l_pix'].item()
    grads = [torch.autograd.grad(out.losses['l_kd'], step.student.conv_first.weight)[0] for out in (plain, scheduled)]
    assert torch.allclose(0.7 * grads[0], grads[1])


def test_an_objective_of_weight_0_costs_no_forward_of_its_own(batch, monkeypatch):
    dukd, kd = DUKDLoss(), LogitsKDLoss()
    dukd.schedule = kd.schedule = Schedule('window', begin=0, end=0.5)
    step = make_step(pixel=ImageObjective('l_pix', nn.L1Loss()), kd=kd, dukd=dukd)
    calls = []
    step.student.register_forward_hook(lambda *_: calls.append('student'))
    step.teachers['a'].net.register_forward_hook(lambda *_: calls.append('teacher'))
    assert set(step(*batch, 5).losses) == {'l_pix', 'l_kd', 'l_zoom_in', 'l_zoom_out'}
    assert calls.count('teacher') == calls.count('student') == 2
    calls.clear()
    assert set(step(*batch, 6).losses) == {'l_pix'}
    assert calls == ['student']


def test_a_gate_is_a_mask_by_hand(batch):
    loss = LogitsKDLoss()
    step = make_step(kd=loss)
    lq, gt = batch
    with torch.no_grad():
        sr, teacher = step.student(lq), step.teachers['a'].net(lq)
    loss.gate = 1
    mask = (teacher - gt).abs().mean(1, keepdim=True) < (sr - gt).abs().mean(1, keepdim=True)
    assert 0 < mask.double().mean() < 1
    out = step(lq, gt, 1)
    assert out.losses['l_kd'].item() == pytest.approx((mask * (sr - teacher).abs()).mean().item(), rel=1e-12)
    out.losses['l_kd'].backward()
    sr = step.student(lq)
    (expected,) = torch.autograd.grad((mask * (sr - teacher).abs()).mean(), step.student.conv_first.weight)
    assert torch.allclose(step.student.conv_first.weight.grad, expected, rtol=1e-9, atol=1e-12)


@given(st.integers(2, 9), st.integers(5, 12), st.integers(5, 12))
def test_a_gate_of_patches_is_one_value_a_patch(side, height, width):
    torch.manual_seed(side)
    sr, teacher, gt = torch.rand(3, 2, 3, height, width, dtype=torch.float64)
    better = teacher_is_better(sr, teacher, gt, side)
    for top in range(0, height, side):
        for left in range(0, width, side):
            box = (..., slice(top, top + side), slice(left, left + side))
            gain = (sr[box] - gt[box]).abs().mean((1, 2, 3)) - (teacher[box] - gt[box]).abs().mean((1, 2, 3))
            assert torch.equal(better[box], (gain > 0).view(2, 1, 1, 1).expand_as(better[box]))
    target = gated_target(sr, teacher, gt, side)
    assert torch.equal(target, torch.where(better, teacher, sr))
    assert not target.requires_grad


def test_without_a_name_several_teachers_are_their_mean(batch):
    step = make_step(teachers=2, kd=LogitsKDLoss())
    lq, gt = batch
    with torch.no_grad():
        sr = step.student(lq)
        mean = (step.teachers['a'].net(lq) + step.teachers['b'].net(lq)) / 2
    assert step(lq, gt, 1).losses['l_kd'].item() == pytest.approx((sr - mean).abs().mean().item(), rel=1e-12)


def test_each_objective_listens_to_its_own_teachers_and_each_teacher_runs_once(batch):
    one, other, dukd = LogitsKDLoss(), LogitsKDLoss(), DUKDLoss(zoom_out=False, augmentations={})
    one.listens_to, other.listens_to, dukd.listens_to = {'a': 1.0}, {'a': 0.25, 'b': 0.75}, {'b': 1.0}
    step = make_step(teachers=3, one=one, other=other, dukd=dukd)
    lq, gt = batch
    calls = []
    for name, teacher in step.teachers.items():
        teacher.net.register_forward_hook(lambda module, inputs, _, name=name: calls.append((name, len(inputs[0]))))
    losses = step(lq, gt, 1).losses
    assert calls == [('a', 2), ('b', 4)]  # b's own view shares its run; nobody listens to c
    with torch.no_grad():
        sr, a, b = step.student(lq), step.teachers['a'].net(lq), step.teachers['b'].net(lq)
    assert losses['l_one/kd'].item() == pytest.approx((sr - a).abs().mean().item(), rel=1e-12)
    assert losses['l_other/kd'].item() == pytest.approx((sr - a / 4 - 3 * b / 4).abs().mean().item(), rel=1e-12)
    assert losses['l_zoom_in'].item() > 0


def test_the_hardest_crop_is_that_of_the_objectives_own_teacher(batch):
    dukd = DUKDLoss(crop='hardest', zoom_out=False, augmentations={})
    dukd.listens_to = {'b': 1.0}
    step = make_step(teachers=2, dukd=dukd)
    alone = make_step(teachers=1, dukd=DUKDLoss(crop='hardest', zoom_out=False, augmentations={}))
    alone.student, alone.teachers = step.student, {'b': step.teachers['b']}
    alone._teacher_indices = {'b': []}
    assert step(*batch, 1).losses['l_zoom_in'].item() == alone(*batch, 1).losses['l_zoom_in'].item()


@pytest.mark.parametrize(
    ('wanted', 'expected'),
    [('a', {'a': 1.0}), (['a', 'b'], {'a': 0.5, 'b': 0.5}), ({'a': 3, 'b': 1}, {'a': 0.75, 'b': 0.25})],
)
def test_weights_of_teachers_are_made_to_sum_to_1(wanted, expected):
    assert read_teachers(wanted, ['a', 'b', 'c']) == expected


@pytest.mark.parametrize(
    ('opt', 'message'),
    [
        ({'teacher': 'd'}, "no teacher 'd'; network_t has: a, b"),
        ({'teacher': {'a': 0}}, 'must be a positive number'),
        ({'teacher': []}, 'names none'),
    ],
)
def test_what_is_no_option_of_a_term_is_refused(opt, message):
    teachers = {name: build_network(TEACHER) for name in 'ab'}
    with pytest.raises(ValueError, match=message):
        build_term('kd_opt', {'type': 'LogitsKDLoss', **opt}, teachers)


def test_a_gate_where_no_outputs_are_compared_is_refused():
    with pytest.raises(ValueError, match='not L1Loss'):
        build_term('pixel_opt', {'type': 'L1Loss', 'gate': 1}, {})


def test_features_of_several_teachers_at_once_are_refused():
    teachers = {name: build_network(TEACHER) for name in 'ab'}
    with pytest.raises(ValueError, match=r"learns from one teacher's features.* teacher: a"):
        build_term('mipkd_opt', {'type': 'MiPKDLoss'}, teachers)
    _, heard = build_term('mipkd_opt', {'type': 'MiPKDLoss', 'teacher': 'b'}, teachers)
    assert heard is teachers['b']


@pytest.mark.parametrize('mix_input', [False, True])
@pytest.mark.parametrize('iteration', [1, 4, 8, 9])
def test_eco_moves_from_the_teachers_output_to_hr(iteration, mix_input, batch):
    step = make_step(eco=ECOLoss(2.0, until=0.8, mix_input=mix_input))
    lq, gt = batch
    with torch.no_grad():
        teacher = step.teachers['a'].net(lq).clamp(0, 1)
    part = min(1.0, iteration / 8)
    target = (1 - part) * teacher + part * gt
    seen = lq
    if mix_input:
        from mipkd_sr.imresize import imresize

        seen = (1 - part) * imresize(teacher, 0.5) + part * lq
    expected = 2 * F.l1_loss(step.student(seen), target)
    out = step(lq, gt, iteration)
    assert out.losses['l_eco'].item() == pytest.approx(expected.item(), rel=1e-10)
    assert out.logs['eco/hr'] == pytest.approx(part)
    weight = step.student.conv_first.weight
    (own,), (wanted,) = (torch.autograd.grad(loss, weight) for loss in (out.losses['l_eco'], expected))
    assert torch.allclose(own, wanted, rtol=1e-8, atol=1e-14)
