"""DUKD: zooming, invertible augmentations, and the loss, against what they are defined as."""

from functools import partial
from itertools import permutations, product

import pytest
import torch
from basicsr.utils.matlab_functions import imresize as imresize_of_basicsr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mipkd_sr.archs import build_network
from mipkd_sr.distill.augmentations import AUGMENTATIONS, InvertibleAugmentation, RandomComposition
from mipkd_sr.distill.objective import ImageObjective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.distill.zooming import crop, zoom_in_grid, zoom_in_hardest, zoom_in_random, zoom_out
from mipkd_sr.losses.dukd_loss import AugmentationLoss, DUKDLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from tests.conftest import NETWORKS, STUDENT, TEACHER, draws

NAMES = ('HorizontalFlip', 'VerticalFlip', 'Rotation90', 'Transposition', 'ColorInversion')


def exact_images(batch: int, size: int, seed: int) -> torch.Tensor:
    """Images whose values are multiples of 2^-12, on which every augmentation is exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**12 + 1, (batch, 3, size, size), generator=generator) / 2**12


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(NAMES), unique=True),
    batch=st.integers(1, 5),
    size=st.integers(1, 9),
    seed=st.integers(0, 9999),
)
def test_the_inverse_of_every_composition_is_exact(names, batch, size, seed):
    torch.manual_seed(seed)
    composition = RandomComposition(dict.fromkeys(names, 0.5))
    images = exact_images(batch, size, seed)
    choice = composition.draw(batch, draws(seed))
    assert torch.equal(composition.invert(composition.apply(images, choice), choice), images)


def test_the_inverse_of_every_composition_of_all_five_in_every_order():
    images = exact_images(32, 5, 0)
    choice = torch.tensor(list(product([True, False], repeat=5))).T  # a sample for each subset
    for names in permutations(NAMES):
        composition = RandomComposition(dict.fromkeys(names, 0.5))
        changed = composition.apply(images, choice)
        assert torch.equal(composition.invert(changed, choice), images)
        assert not torch.equal(changed, images)


def test_the_inverses_run_in_reverse_order_and_undo_the_larger_output():
    """A network that commutes with turns and flips gives the same with and without; the wrong order would not."""
    composition = RandomComposition({'HorizontalFlip': 1.0, 'Rotation90': 1.0})
    images = exact_images(3, 6, 0)
    choice = composition.draw(3, draws())
    enlarged = composition.invert(F.interpolate(composition.apply(images, choice), scale_factor=2), choice)
    assert torch.equal(enlarged, F.interpolate(images, scale_factor=2))
    assert torch.equal(composition.apply(images, choice), images.flip(-1).rot90(1, (-2, -1)))


def test_each_augmentation_is_drawn_for_each_sample_with_its_probability():
    choice = RandomComposition({'HorizontalFlip': 0.2, 'ColorInversion': 0.7}).draw(4000, draws())
    assert [chosen.float().mean().item() for chosen in choice] == pytest.approx([0.2, 0.7], abs=0.03)


def test_a_users_own_augmentation_joins_by_registration():
    class Transpose(InvertibleAugmentation):
        def apply(self, images):
            return images.transpose(-1, -2)

        invert = apply

    AUGMENTATIONS.register(Transpose)
    composition = RandomComposition({'Transpose': 1.0})
    images = torch.rand(2, 3, 4, 4)
    choice = composition.draw(2, draws())
    assert torch.equal(composition.apply(images, choice), images.mT)
    assert torch.equal(composition.invert(composition.apply(images, choice), choice), images)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_zoom_out_is_basicsrs_imresize(scale):
    lq = torch.rand(2, 3, 24, 24)
    for image, small in zip(lq, zoom_out(lq, scale), strict=True):
        assert torch.allclose(small, imresize_of_basicsr(image, 1 / scale), atol=1e-5, rtol=0)


def test_crops_are_cut_at_a_place_of_their_own():
    images = torch.rand(3, 2, 8, 9)
    top, left = torch.tensor([0, 3, 4]), torch.tensor([5, 0, 2])
    boxes = crop(images, top, left, 4, 4)
    for image, box, y, x in zip(images, boxes, top.tolist(), left.tolist(), strict=True):
        assert torch.equal(box, image[:, y : y + 4, x : x + 4])


def test_random_zoom_in_reaches_every_place():
    gt = torch.arange(36.0).view(1, 1, 6, 6).expand(400, 3, 6, 6)
    corners = zoom_in_random(gt, 3, 3, draws())[:, 0, 0, 0]
    assert set(corners.tolist()) == {y * 6.0 + x for y in range(4) for x in range(4)}


@pytest.mark.parametrize('scale', [2, 3])
def test_zoom_in_on_a_grid_takes_different_tiles_of_each_patch(scale):
    """The patches are made of tiles of one value, which is the tile's number."""
    numbers = torch.arange(scale**2, dtype=torch.float32).view(1, 1, scale, scale)
    gt = numbers.repeat_interleave(4, 2).repeat_interleave(5, 3).expand(64, 3, 4 * scale, 5 * scale)
    crops = zoom_in_grid(gt, scale, 2, draws())
    assert [tuple(images.shape) for images in crops] == [(64, 3, 4, 5)] * 2
    first, second = (images[:, 0, 0, 0] for images in crops)
    assert all(torch.equal(images, images[:, :1, :1, :1].expand_as(images)) for images in crops)
    assert not (first == second).any()
    assert set(first.tolist()) == set(second.tolist()) == set(range(scale**2))


def test_hardest_zoom_in_is_where_the_teacher_errs_most():
    gt = torch.rand(2, 3, 32, 32)
    teacher_sr = gt.clone()
    teacher_sr[0, :, 16:, 16:] += 0.5
    teacher_sr[1, :, :16, 10:26] -= 0.5
    assert torch.equal(zoom_in_hardest(gt, teacher_sr, 16, 16), torch.stack([gt[0, :, 16:, 16:], gt[1, :, :16, 10:26]]))


def make_step(**objectives) -> DistillStep:
    torch.manual_seed(0)
    student, teacher = build_network(STUDENT), FrozenTeacher(build_network(TEACHER))
    for objective in objectives.values():
        objective.attach(student, teacher.net, 16, 2)
    return DistillStep(student, teacher, objectives, 10, 1)


@pytest.fixture
def batch():
    return torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)


def test_dukds_losses_are_what_the_paper_defines(batch):
    lq, gt = batch
    loss = DUKDLoss(loss_weight=0.5, augmentations={'ColorInversion': 1.0}, label_weight=2.0)
    step = make_step(dukd=loss)
    views = {}
    original = loss.views
    loss.views = lambda *args: views.update(original(*args)) or dict(views)
    losses = step(lq, gt, 1).losses
    student, teacher = step.student.double(), step.teachers['teacher'].net.double()
    zi, zo = views['zoom_in_0'].teacher.double(), views['zoom_out'].teacher.double()
    assert losses['l_zoom_in'].item() == pytest.approx(0.5 * ((1 - student(1 - zi)) - teacher(zi)).abs().mean().item())
    assert losses['l_zoom_out'].item() == pytest.approx(0.5 * (student(zo) - teacher(zo)).abs().mean().item())
    assert losses['l_zoom_out_label'].item() == pytest.approx(2 * (student(zo) - lq).abs().mean().item())
    assert torch.equal(views['zoom_in_0'].student, 1 - views['zoom_in_0'].teacher)


def run_one_by_one(run_all, run, inputs, indices):
    return {name: passes for one in inputs for name, passes in run_all(run, {one: inputs[one]}, indices).items()}


@pytest.mark.parametrize('crop', ['random', 'hardest'])
def test_inputs_of_one_size_share_a_call_and_give_the_same(crop, batch):
    outputs = {}
    for shared in (True, False):
        step = make_step(kd=LogitsKDLoss(), mipkd=MiPKDLoss(positions=2), dukd=DUKDLoss(crop=crop))
        if not shared:
            step._run = partial(run_one_by_one, step._run)
        calls = {'student': 0, 'teacher': 0}
        for name, net in (('student', step.student), ('teacher', step.teachers['teacher'].net)):
            head = net.head
            net.head = lambda lq, name=name, head=head, calls=calls: calls.update({name: calls[name] + 1}) or head(lq)
        torch.manual_seed(5)
        losses = step(*batch, 1).losses
        sum(losses.values()).backward()
        outputs[shared] = {name: value.item() for name, value in losses.items()}
        teacher_calls = 2 + (crop == 'hardest') if shared else 3
        assert calls == {'student': 2 if shared else 3, 'teacher': teacher_calls}
    assert outputs[True] == pytest.approx(outputs[False], rel=1e-4)


@pytest.mark.parametrize('kind', NETWORKS)
def test_each_term_alone_moves_the_student_and_not_the_teacher(kind, batch):
    opt = {'type': kind, **NETWORKS[kind], 'upscale': 2}
    for options in ({'zoom_out': False}, {'zoom_in': False}, {'zoom_out': False, 'crops': 2, 'crop': 'grid'}):
        student, teacher = build_network(opt), FrozenTeacher(build_network(opt))
        loss = DUKDLoss(**options)
        loss.attach(student, teacher.net, 16, 2)
        losses = DistillStep(student, teacher, {'dukd': loss}, 10, 1)(*batch, 1).losses
        assert len(losses) == 1
        sum(losses.values()).backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
        assert all(parameter.grad is None for parameter in teacher.net.parameters())


def test_the_control_augments_without_a_teacher(batch):
    lq, gt = batch
    student = build_network(STUDENT)
    objectives = {
        'pixel': ImageObjective('l_pix', nn.L1Loss()),
        'augmentation': AugmentationLoss(augmentations={'VerticalFlip': 1.0}),
    }
    losses = DistillStep(student, None, objectives, 10, 1)(lq, gt, 1).losses
    assert losses['l_aug'].item() == pytest.approx((student(lq.flip(-2)).flip(-2) - gt).abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'zoom_in': False, 'zoom_out': False}, 'both false'),
        ({'crop': 'hard'}, "crop 'hard' is not one of"),
        ({'crop': 'hardest', 'crops': 2}, '1 for the hardest crop'),
        ({'crops': 0}, 'crops must be at least 1'),
        ({'augmentations': {'Flip': 0.5}}, "no augmentation 'Flip'"),
        ({'augmentations': {'VerticalFlip': 2}}, r'must be in \[0, 1\]'),
        ({'augment': ['zoom']}, 'augment takes zoom_in and zoom_out'),
        ({'label_weight': 1.0, 'zoom_out': False}, 'label_weight is for zoom_out'),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DUKDLoss(**options)


def test_zoom_out_under_swinirs_window_or_of_an_indivisible_patch_is_refused():
    net = build_network({'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': 2})
    with pytest.raises(ValueError, match=r'patches of 6 x 6, under the window of 8 of StagedSwinIR'):
        DUKDLoss().attach(net, net, 12, 2)
    with pytest.raises(ValueError, match=r'that the scale divides: 15 / 2'):
        DUKDLoss().attach(build_network(STUDENT), None, 15, 2)
    DUKDLoss(zoom_out=False).attach(net, net, 12, 2)


def test_more_crops_than_a_grid_has_tiles_are_refused():
    net = build_network(STUDENT)
    with pytest.raises(ValueError, match=r'crops is 5, and a grid has 2 x 2 tiles'):
        DUKDLoss(crop='grid', crops=5).attach(net, None, 16, 2)
    DUKDLoss(crop='grid', crops=4).attach(net, None, 16, 2)
