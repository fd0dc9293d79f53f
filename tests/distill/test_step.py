"""The distillation step and its objectives, against compositions written out by hand."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.archs import build_network, run_with_features
from mipkd_sr.distill.block_prior_mixer import BlockPriorMixer
from mipkd_sr.distill.distances import l1_distance
from mipkd_sr.distill.feature_prior_mixer import FeaturePriorMixer
from mipkd_sr.distill.log_names import LogNames
from mipkd_sr.distill.masks import MASKS
from mipkd_sr.distill.objective import ImageObjective, Objective, StepState, run_units
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher, run_network
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss, kept_positions
from mipkd_sr.runtime.errors import RunError
from tests.conftest import NETWORKS, STUDENT, TEACHER, draws

WIDTHS = {'EDSR': 'num_feat', 'RCAN': 'num_feat', 'SwinIR': 'embed_dim'}


def pair(kind: str = 'EDSR') -> tuple[Any, FrozenTeacher]:
    """A student, and a teacher of the same kind that is half as wide again."""
    if kind == 'EDSR':
        return build_network(STUDENT), FrozenTeacher(build_network(TEACHER))
    opt = {'type': kind, **NETWORKS[kind], 'upscale': 2}
    return build_network(opt), FrozenTeacher(build_network(opt | {WIDTHS[kind]: opt[WIDTHS[kind]] * 3 // 2 // 4 * 4}))


def state_of(loss: MiPKDLoss, student: Any, teacher: FrozenTeacher, lq: Tensor, progress: float = 1.0) -> StepState:
    return StepState(
        lq,
        torch.rand(2, 3, 32, 32),
        {'lq': run_network(student, lq, loss.student_indices())},
        {'lq': teacher(lq, loss.teacher_indices())},
        progress,
        torch.Generator().manual_seed(0),
        draws(),
        {},
    )


def make_mipkd(student: Any, teacher: FrozenTeacher, **options: Any) -> MiPKDLoss:
    loss = MiPKDLoss(**{'positions': 2, 'drop_probability': 0.0} | options)
    loss.attach(student, teacher.net, 16, 2)
    return loss


@pytest.fixture
def lq() -> Tensor:
    return torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('through_student', [True, False])
def test_block_path_equals_one_written_out_by_hand(kind, through_student, lq):
    student, teacher = pair(kind)
    loss = make_mipkd(
        student, teacher, positions=[0.5], student_probability=float(through_student), mask='grid', teacher_ratio=0.5
    )
    losses = loss(state_of(loss, student.eval(), teacher, lq))

    index_s, index_t = loss.student_indices()[0], loss.teacher_indices()[0]
    net_t = teacher.net
    start_s, context_s = student.head(lq)
    start_t, context_t = net_t.head(lq)
    feature_s = student.body(start_s, context_s, 0, index_s)
    feature_t = net_t.body(start_t, context_t, 0, index_t)
    mixer = loss.feature_mixers[0]
    size_s, size_t = (feature.detach().abs().mean() for feature in (feature_s, feature_t))
    latent_s, latent_t = mixer.encoder_s(feature_s / size_s), mixer.encoder_t(feature_t / size_t)
    number = sum(torch.meshgrid(*(torch.arange(n) for n in latent_t.shape[1:]), indexing='ij'))
    mixed = mixer.decoder(torch.where(number % 2 == 1, latent_t, latent_s))
    if through_student:
        rest = loss.block_mixer.to_student[0](mixed) * size_s
        for unit in range(index_s, student.depth):
            rest = student.body(rest, context_s, unit, unit + 1)
        image = student.tail(rest, context_s)
    else:
        rest = mixed * size_t
        for unit in range(index_t, net_t.depth):
            rest = net_t.body(rest, context_t, unit, unit + 1)
        image = net_t.tail(rest, context_t)
    assert torch.allclose(losses['l_block'], 0.1 * (image - net_t(lq)).abs().mean(), rtol=1e-5)
    expected = (size_t * mixed - feature_t).abs().mean() / feature_t.abs().mean()
    assert torch.allclose(losses['l_feat'], expected, rtol=1e-5)


def test_a_perfect_autoencoder_and_an_all_teacher_mask_lose_nothing(lq):
    student, teacher = pair()
    loss = make_mipkd(
        student, teacher, latent_width=12, teacher_ratio=1.0, student_probability=0.0, layer='mlp', ae_until=1.0
    )
    for mixer in loss.feature_mixers:
        for layer in (mixer.encoder_t[0], mixer.decoder[0]):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)
    losses = loss(state_of(loss, student, teacher, lq))
    assert losses.keys() == {'l_feat', 'l_block', 'l_ae'}
    for value in losses.values():
        assert value.item() == pytest.approx(0, abs=1e-6)


def test_autoencoder_loss_lasts_as_long_as_it_is_asked_to(lq):
    student, teacher = pair()
    loss = make_mipkd(student, teacher, ae_until=0.5)
    assert 'l_ae' in loss(state_of(loss, student, teacher, lq, progress=0.5))
    assert 'l_ae' not in loss(state_of(loss, student, teacher, lq, progress=0.51))


def test_a_dropped_position_has_no_block_loss(lq):
    student, teacher = pair()
    loss = make_mipkd(student, teacher, drop_probability=1.0)
    state = state_of(loss, student, teacher, lq)
    assert loss(state)['l_block'].item() == 0
    assert [state.logs[f'mipkd/path_{k}'] for k in (1, 2)] == [-1, -1]


def test_a_latent_space_of_the_teachers_width_has_the_feature_maps_own_dimensions(lq):
    student, teacher = pair()  # 8 and 12 channels
    paper, tuned, own = (make_mipkd(student, teacher, latent_width=width) for width in ('teacher', None, 5))
    for loss, width in ((paper, 12), (tuned, 4), (own, 5)):
        for mixer in loss.feature_mixers:
            shapes = [tuple(net[0].weight.shape) for net in (mixer.encoder_s, mixer.encoder_t, mixer.decoder)]
            assert shapes == [(width, 8, 3, 3), (width, 12, 3, 3), (12, width, 3, 3)]


def test_rescaled_drops_leave_the_expected_block_loss_as_it_is_without_drops(lq):
    """Over every start of the systematic draw, at the same mixed map and path; unscaled it is a quarter."""
    student, teacher = pair()
    means = {}
    for name, options in {
        'undropped': {'drop_probability': 0.0},
        'dropped': {'drop_probability': 0.75},
        'rescaled': {'drop_probability': 0.75, 'rescale': True},
    }.items():
        torch.manual_seed(0)
        loss = make_mipkd(student, teacher, mask='grid', student_probability=1.0, ae_weight=0.0, **options)
        values = []
        for seed in range(200):
            state = state_of(loss, student, teacher, lq)
            state.branch_rng.manual_seed(seed)
            with torch.no_grad():
                values.append(loss(state)['l_block'].item())
        means[name] = np.mean(values)
    assert means['rescaled'] == pytest.approx(means['undropped'], rel=0.15)
    assert means['dropped'] == pytest.approx(means['undropped'] / 4, rel=0.15)
    assert means['rescaled'] == pytest.approx(4 * means['dropped'], rel=1e-5)


def test_what_cannot_be_rescaled_or_is_no_width_is_refused():
    with pytest.raises(ValueError, match='rescale needs a drop_probability under 1'):
        MiPKDLoss(drop_probability=1.0, rescale=True)
    with pytest.raises(ValueError, match="latent_width 'student' is not one of teacher"):
        MiPKDLoss(latent_width='student')


def moving(net: nn.Module) -> Iterator[bool]:
    return (parameter.grad is not None and bool(parameter.grad.any()) for parameter in net.parameters())


TERMS = {
    'l_feat': {'block_weight': 0.0},
    'l_block through the student': {'feat_weight': 0.0, 'student_probability': 1.0},
    'l_block through the teacher': {'feat_weight': 0.0, 'student_probability': 0.0},
}


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('options', TERMS.values(), ids=TERMS)
def test_each_term_alone_moves_the_student_and_not_the_teacher(kind, options, lq):
    student, teacher = pair(kind)
    loss = make_mipkd(student, teacher, ae_weight=0.0, **options)
    sum(loss(state_of(loss, student, teacher, lq)).values()).backward()
    assert any(moving(student))
    assert any(moving(loss.feature_mixers))
    assert all(parameter.grad is None for parameter in teacher.net.parameters())


def make_step(**objectives: Any) -> DistillStep:
    student, teacher = pair()
    for objective in objectives.values():
        objective.attach(student, teacher.net, 16, 2)
    return DistillStep(student, teacher, objectives, total_iter=10, seed=1)


def test_logits_kd_is_the_mean_absolute_difference_of_the_outputs(lq):
    step = make_step(kd=LogitsKDLoss(loss_weight=0.7))
    losses = step(lq, torch.rand(2, 3, 32, 32), 1).losses
    expected = (
        0.7 * (step.student.double()(lq.double()) - step.teachers['teacher'].net.double()(lq.double())).abs().mean()
    )
    assert losses['l_kd'].item() == pytest.approx(expected.item(), rel=1e-4)


class Counting(nn.Module):
    """Counts the calls of a network's head, which every forward goes through once."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.calls = net, 0
        head = net.head

        def counted(lq: Tensor) -> Any:
            self.calls += 1
            return head(lq)

        net.head = counted


def test_each_network_runs_once_however_many_objectives_there_are(lq):
    step = make_step(
        pixel=ImageObjective('l_pix', nn.L1Loss()),
        kd=LogitsKDLoss(),
        mipkd=MiPKDLoss(positions=2, drop_probability=0.0),
    )
    student, teacher = Counting(step.student), Counting(step.teachers['teacher'].net)
    losses = step(lq, torch.rand(2, 3, 32, 32), 1).losses
    assert (student.calls, teacher.calls) == (1, 1)
    assert set(losses) == {'l_pix', 'l_kd', 'l_feat', 'l_block', 'l_ae'}


def test_the_teacher_stays_frozen(lq):
    student = build_network({'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': 2})
    net_t = build_network({'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': 2, 'drop_path_rate': 0.9})
    loss = MiPKDLoss(positions=2, drop_probability=0.0)
    loss.attach(student, net_t, 16, 2)
    step = DistillStep(student, FrozenTeacher(net_t), {'mipkd': loss}, 10, 1).train()
    teacher_pass = step.teachers['teacher'](lq)
    assert not teacher_pass.sr.requires_grad
    assert torch.equal(teacher_pass.sr, step.teachers['teacher'](lq).sr)  # drop-path would make it random
    own = {id(parameter) for parameter in step.parameters()}
    assert not own & {id(parameter) for parameter in net_t.parameters()}
    assert not any(name.startswith('teacher') for name in step.state_dict())


def test_every_parameter_has_a_gradient_whichever_path_is_taken(lq):
    step = make_step(
        pixel=ImageObjective('l_pix', nn.L1Loss()), mipkd=MiPKDLoss(positions=2, drop_probability=0.0, ae_weight=0.0)
    )
    paths = set()
    for iteration in range(1, 7):
        step.zero_grad()
        output = step(lq, torch.rand(2, 3, 32, 32), iteration)
        sum(output.losses.values()).backward()
        paths.add(tuple(output.logs[f'mipkd/path_{k}'] for k in (1, 2)))
        assert all(parameter.grad is not None for parameter in step.parameters())
    assert len(paths) > 1


def test_branches_depend_on_seed_iteration_and_name_alone(lq):
    def paths(step: DistillStep, iterations: range) -> list[float]:
        gt = torch.rand(2, 3, 32, 32)
        return [value for i in iterations for name, value in step(lq, gt, i).logs.items() if 'path' in name]

    first = paths(make_step(mipkd=MiPKDLoss(positions=2, drop_probability=0.0)), range(1, 9))
    torch.manual_seed(99)
    assert paths(make_step(kd=LogitsKDLoss(), mipkd=MiPKDLoss(positions=2, drop_probability=0.0)), range(1, 9)) == first
    assert paths(make_step(mipkd=MiPKDLoss(positions=2, drop_probability=0.0)), range(9, 17)) != first


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(MASKS)), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 99))
def test_masks_are_zeros_and_ones_in_the_asked_ratio(name, ratio, seed):
    torch.manual_seed(seed)
    mask = MASKS[name](torch.randn(4, 16, 16, 16), torch.randn(4, 16, 16, 16), ratio, draws(seed))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(ratio, abs=0.02)


def test_random_masks_differ_between_samples_channels_and_places():
    mask = MASKS['random'](*torch.randn(2, 2, 8, 16, 16), 0.5, draws())
    assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(mask[0, 0], mask[0, 1])
    assert not torch.equal(mask[0, 0, 0], mask[0, 0, 1])


def test_run_with_features_returns_the_features_on_the_way(lq):
    net = build_network(STUDENT)
    sr, features, context = run_with_features(net, lq, [1])
    assert torch.equal(features[1], net.body[0](net.head(lq)[0]))
    assert torch.equal(sr, net.tail(net.body[1](features[1]), context))
    assert F.l1_loss(sr, net(lq)).item() == 0


@pytest.mark.parametrize('kind_t', NETWORKS)
@pytest.mark.parametrize('kind_s', NETWORKS)
def test_any_two_architectures_distil(kind_s, kind_t, lq):
    """The nine pairs; student 8 or 12 wide, teacher 12."""
    student = build_network({'type': kind_s, **NETWORKS[kind_s], 'upscale': 2})
    teacher = FrozenTeacher(build_network({'type': kind_t, **NETWORKS[kind_t], WIDTHS[kind_t]: 12, 'upscale': 2}))
    loss = make_mipkd(student, teacher)
    losses = loss(state_of(loss, student, teacher, lq))
    sum(losses.values()).backward()
    assert any(moving(student))


def test_feature_maps_of_different_size_are_refused():
    student = build_network(STUDENT)
    teacher = build_network({'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': 2})
    with pytest.raises(ValueError, match=r'\(8, 12, 12\) after unit 1, .* same height and width'):
        MiPKDLoss(positions=2, drop_probability=0.0).attach(student, teacher, 12, 2)  # the window of 8 pads 12 to 16


CHOICES = {
    'shared encoder': {'encoder': 'shared'},
    'no encoder': {'encoder': 'none'},
    'MLP': {'layer': 'mlp'},
    'deep latent space': {'latent_depth': 3, 'latent_width': 5},
    'grid mask': {'mask': 'grid'},
    'cosine mask': {'mask': 'cosine'},
    'CKA mask': {'mask': 'cka'},
    'L2': {'distance': 'l2'},
    'resampled path': {'path': 'resampled'},
    'features as they are': {'normalize': False},
    'as the paper says': {
        'latent_width': 'teacher',
        'teacher_ratio': 0.5,
        'student_probability': 0.5,
        'drop_probability': 0.0,
        'normalize': False,
    },
}


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('options', CHOICES.values(), ids=CHOICES)
def test_every_choice_trains_the_student(kind, options, lq):
    student, teacher = pair(kind)
    loss = make_mipkd(student, teacher, ae_until=1.0, **options)
    losses = loss(state_of(loss, student, teacher, lq))
    assert ('l_ae' in losses) == (options.get('encoder') != 'none')
    sum(losses.values()).backward()
    assert any(moving(student))
    assert all(parameter.grad is None for parameter in teacher.net.parameters())


def test_a_shared_encoder_is_one_module_and_none_has_no_parameters_for_equal_widths():
    shared = FeaturePriorMixer(8, 8, 8, encoder='shared')
    assert shared.encoder_s[1] is shared.encoder_t
    assert not list(FeaturePriorMixer(8, 8, 8, encoder='none').parameters())


def test_without_encoders_the_features_themselves_are_mixed():
    mixer = FeaturePriorMixer(8, 8, 8, encoder='none', mask='grid', teacher_ratio=0.5)
    feature_s, feature_t = torch.zeros(1, 8, 4, 4), torch.ones(1, 8, 4, 4)
    mixed, _ = mixer(feature_s, feature_t, draws())
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert mixed.mean().item() == 0.5


@pytest.mark.parametrize(
    'draws', [[True, False, True], [False, True, False], [True, True, False], [False, False, False]]
)
def test_resampled_path_equals_one_written_out_by_hand(draws, lq, monkeypatch):
    student = build_network({**STUDENT, 'num_block': 3})
    teacher = FrozenTeacher(build_network({**TEACHER, 'num_block': 6}))
    net_t = teacher.net
    mixer = BlockPriorMixer([(1, 2), (2, 4), (3, 6)], [(8, 12)] * 3, 'resampled')
    values = iter([0.0 if in_student else 0.9 for in_student in draws])
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: torch.tensor(next(values)))
    pass_s, pass_t = run_network(student, lq, [1]), teacher(lq, [2])
    sizes = [(2.0, 3.0), (5.0, 7.0), (11.0, 13.0)]
    image, taken = mixer(0, pass_t.features[2] / 3, pass_s, pass_t, torch.Generator(), sizes)
    assert taken == draws

    feature, width = pass_t.features[2], 12
    for k, in_student in enumerate(draws):
        size_s, size_t = sizes[k]
        if in_student and width == 12:
            feature, width = mixer.to_student[k](feature / size_t) * size_s, 8
        elif not in_student and width == 8:
            feature, width = mixer.to_teacher[k](feature / size_s) * size_t, 12
        if k < 2:
            units = student.body[k + 1 : k + 2] if in_student else net_t.body[2 * k + 2 : 2 * k + 4]
            for unit in units:
                feature = unit(feature)
    net, passed = (student, pass_s) if draws[-1] else (net_t, pass_t)
    assert torch.allclose(image, net.tail(feature, passed.context), rtol=0, atol=1e-6)


@pytest.mark.parametrize('kind', list(NETWORKS))
def test_what_is_computed_again_of_the_teacher_gives_the_same_gradient(kind, lq):
    """And keeps less: the maps between the parts."""
    deeper: dict[str, Any] = {'EDSR': {'num_block': 9}, 'RCAN': {'num_group': 5}, 'SwinIR': {}}
    net_t = build_network({'type': kind, **NETWORKS[kind], 'upscale': 2, **deeper[kind]})
    teacher = FrozenTeacher(net_t)(lq, [1])
    gradients, sizes = [], []
    for parts in (6, 0):
        mixed = teacher.features[1].clone().requires_grad_()
        kept: dict[int, int] = {}

        def note(tensor: Tensor, to: dict[int, int] = kept) -> Tensor:
            to[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            feature = run_units(net_t, mixed, teacher.context, 1, net_t.depth, parts)
        sizes.append(sum(kept.values()))
        feature.square().sum().backward()
        gradients.append(mixed.grad)
    assert torch.equal(*gradients)
    assert sizes[0] < sizes[1] / 2


@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**31))
def test_positions_are_kept_as_evenly_as_can_be(count, probability, seed):
    kept = kept_positions(count, probability, torch.Generator().manual_seed(seed))
    assert len(kept) == count
    assert math.floor(count * probability - 1e-9) <= sum(kept) <= math.ceil(count * probability + 1e-9)


def test_each_position_is_kept_with_its_probability():
    rng = torch.Generator().manual_seed(0)
    for probability in (0.0, 0.25, 0.6, 1.0):
        kept = np.array([kept_positions(3, probability, rng) for _ in range(3000)])
        assert kept.mean(axis=0) == pytest.approx([probability] * 3, abs=0.03)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_the_l1_distance_is_torchs_and_keeps_a_byte_an_element(dtype):
    feature, target = torch.randn(2, 3, 8, 8).to(dtype).requires_grad_(), torch.randn(2, 3, 8, 8).to(dtype)
    with torch.no_grad():
        target[0, 0, 0, :4] = feature[0, 0, 0, :4]  # where the gradient is 0
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        value = l1_distance(feature, target)
    assert sum(tensor.nbytes for tensor in kept) == feature.numel()
    dtype_of_loss = torch.promote_types(dtype, torch.float32)
    expected = F.l1_loss(feature.to(dtype_of_loss), target.to(dtype_of_loss))
    assert value.dtype == dtype_of_loss
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(3 * value, feature)
    assert torch.equal(gradient, torch.autograd.grad(3 * expected, feature)[0])
    assert gradient[0, 0, 0, :4].count_nonzero() == 0


def test_similarity_masks_take_the_teacher_where_the_two_are_least_alike():
    latent_t = torch.randn(1, 4, 6, 6)
    turned = latent_t.clone()
    turned[:, :, :3] *= -1  # the upper half points the other way
    assert torch.equal(MASKS['cosine'](turned, latent_t, 0.5, draws())[0, 0, :, 0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    mixed_up = latent_t.clone()
    mixed_up[:, 1] = torch.randn(6, 6)
    mask = MASKS['cka'](mixed_up, latent_t, 0.25, draws())
    assert torch.equal(mask[0, :, 0, 0], torch.tensor([0.0, 1, 0, 0]))


def test_the_mean_of_r_is_the_students_probability(lq):
    student, teacher = pair()
    for probability in (0.0, 0.3, 1.0):
        loss = make_mipkd(student, teacher, student_probability=probability)
        state = state_of(loss, student, teacher, lq)
        rng, mixer = torch.Generator().manual_seed(0), loss.block_mixer
        feature = teacher(lq, loss.teacher_indices()).features[loss.teacher_indices()[1]]
        with torch.no_grad():
            passes = state.student['lq'], state.teacher['lq']
            taken = [mixer(1, feature, *passes, rng, [(1.0, 1.0)] * 2)[1][0] for _ in range(300)]
        assert sum(taken) / 300 == pytest.approx(probability, abs=0.08)


class Own(Objective):
    """An objective that returns what a test wants."""

    needs_teacher = False

    def __init__(self, returns: Any) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, state: StepState) -> Any:
        state.logs['size'] = 1.0
        return self.returns


def test_losses_of_one_name_are_all_counted_and_told_apart(lq):
    gt = torch.rand(2, 3, 32, 32)
    step = make_step(pixel=ImageObjective('l_pix', nn.L1Loss()), kd=LogitsKDLoss(), kd2=LogitsKDLoss(loss_weight=3.0))
    output = step(lq, gt, 1)
    assert set(output.losses) == {'l_pix', 'l_kd/kd', 'l_kd2/kd'}
    single = make_step(kd=LogitsKDLoss())
    single.load_state_dict(step.state_dict(), strict=False)
    single.teachers = step.teachers
    kd = single(lq, gt, 1).losses['l_kd'].item()
    assert output.losses['l_kd/kd'].item() == pytest.approx(kd)
    assert output.losses['l_kd2/kd'].item() == pytest.approx(3 * kd)


def test_an_own_loss_called_l_pix_leaves_the_pixel_loss(lq):
    output = make_step(
        pixel=ImageObjective('l_pix', nn.L1Loss()),
        own=Own({'l_pix': torch.tensor(2.0)}),
        other=Own({'size': torch.tensor(5.0)}),
    )(lq, torch.rand(2, 3, 32, 32), 1)
    assert set(output.losses) == {'l_pixel/pix', 'l_own/pix', 'l_other/size'}
    assert output.losses['l_own/pix'] == 2
    assert output.logs == {'own/size': 1, 'other/size': 1}


def test_a_name_that_was_shared_once_keeps_its_form():
    names = LogNames()
    assert names.join({'a': {'l_x': 1}, 'b': {'l_y': 2}}, {}) == ({'l_x': 1, 'l_y': 2}, {})
    assert names.join({'a': {'l_x': 1}, 'b': {'l_x': 2}}, {}) == ({'l_a/x': 1, 'l_b/x': 2}, {})
    assert names.join({'a': {'l_x': 1}, 'b': {}}, {}) == ({'l_a/x': 1}, {})


@given(
    st.dictionaries(
        st.sampled_from(['a', 'b', "a'"]),
        st.dictionaries(st.sampled_from(['l_x', 'l_a/x', 'l_b/x', "l_a/x'", 'x']), st.integers()),
    ),
    st.dictionaries(st.sampled_from(['a', 'b']), st.dictionaries(st.sampled_from(['l_x', 'a/x', 'x']), st.integers())),
)
def test_no_value_is_lost_whatever_the_names(losses, logs):
    joined_losses, joined_logs = LogNames().join(losses, logs)
    assert not joined_losses.keys() & joined_logs.keys()
    for joined, parts in ((joined_losses, losses), (joined_logs, logs)):
        assert sorted(joined.values()) == sorted(value for values in parts.values() for value in values.values())


@pytest.mark.parametrize(
    ('returns', 'found'),
    [
        (None, 'a NoneType'),
        (torch.tensor(1.0), r'a tensor of shape \(\) and type float32'),
        ({'l_own': torch.ones(2)}, r"a tensor of shape \(2,\) and type float32 under 'l_own'"),
        ({'l_own': 1.0}, "a float under 'l_own'"),
        ({'l_own': torch.tensor(1)}, "type int64 under 'l_own'"),
        ({1: torch.tensor(1.0)}, 'under 1'),
    ],
)
def test_what_is_no_dict_of_scalars_is_refused_by_name(returns, found, lq):
    with pytest.raises(RunError, match=rf'train:own_opt: Own returned .*{found}; its forward must return'):
        make_step(own=Own(returns))(lq, torch.rand(2, 3, 32, 32), 1)


def test_two_objectives_of_one_kind_have_views_of_their_own(lq):
    gt, options = torch.rand(2, 3, 32, 32), {'zoom_out': False, 'augmentations': {}}
    step = make_step(dukd=DUKDLoss(**options), hard=DUKDLoss(**options, crop='hardest'))
    both = step(lq, gt, 1).losses
    for key, name in (('dukd', 'l_dukd/zoom_in'), ('hard', 'l_hard/zoom_in')):
        alone = DistillStep(step.student, step.teachers['teacher'], {key: step.objectives[key]}, total_iter=10, seed=1)
        assert both[name].item() == pytest.approx(alone(lq, gt, 1).losses['l_zoom_in'].item(), rel=1e-5)


class Late(Own):
    def forward(self, state: StepState) -> Any:
        self.late = nn.Linear(2, 2)
        return {'l_own': self.late.weight.sum()}


def test_a_parameter_created_in_a_step_is_refused(lq):
    with pytest.raises(RunError, match=r'train:own_opt: Late created its parameter late\.\w+ in a training step'):
        make_step(own=Late(None))(lq, torch.rand(2, 3, 32, 32), 1)
