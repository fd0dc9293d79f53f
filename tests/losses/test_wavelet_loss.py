"""Haar's bands, and the loss of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mipkd_sr.archs import build_network
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.losses.wavelet_loss import WaveletLoss, haar_bands
from tests.conftest import STUDENT, TEACHER


def from_haar_bands(bands):
    """The images, B x C x H x W, of which ``haar_bands`` made ``bands``."""
    low = bands[-1]
    for high in reversed(bands[:-1]):
        x, y, z = high.unbind(2)
        rows = [
            torch.stack(pair, -1).flatten(-2)
            for pair in ((low + x + y + z, low - x + y - z), (low + x - y - z, low - x - y + z))
        ]
        low = torch.stack(rows, -2).flatten(-3, -2) / 2
    return low


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_the_bands_restore_the_image_and_keep_its_energy(batch, levels, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    size = (batch, 2, rows * 2**levels, columns * 2**levels)
    images = torch.rand(size, generator=generator, dtype=torch.float64)
    bands = haar_bands(images, levels)
    assert torch.allclose(from_haar_bands(bands), images, rtol=0, atol=1e-12)
    assert sum(band.square().sum() for band in bands).item() == pytest.approx(images.square().sum().item())
    # each band alone, the others zero: the images that they restore sum to the image
    parts = [
        from_haar_bands([b if i == k else torch.zeros_like(b) for i, b in enumerate(bands)]) for k in range(levels + 1)
    ]
    assert torch.allclose(torch.stack(parts).sum(0), images, rtol=0, atol=1e-12)


def bands_by_hand(image: np.ndarray, levels: int) -> list[np.ndarray]:
    """Of an H x W image: with matrices, rows then columns."""
    found = []
    for _ in range(levels):
        height, width = image.shape
        low, high = ((np.kron(np.eye(n // 2), np.array([[1, s]])) / np.sqrt(2)) for n in (height,) for s in (1, -1))
        left, right = ((np.kron(np.eye(width // 2), np.array([[1, s]])) / np.sqrt(2)) for s in (1, -1))
        found.append(np.stack([low @ image @ right.T, high @ image @ left.T, high @ image @ right.T]))
        image = low @ image @ left.T
    return [*found, image]


def test_bands_are_those_of_haars_matrices():
    image = torch.rand(1, 1, 8, 16, dtype=torch.float64)
    for own, expected in zip(haar_bands(image, 3), bands_by_hand(image[0, 0].numpy(), 3), strict=True):
        assert np.allclose(own[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def step_of(loss: WaveletLoss) -> DistillStep:
    student, teacher = build_network(STUDENT).double(), FrozenTeacher(build_network(TEACHER).double())
    loss.attach(student, teacher.net, 8, 2)
    return DistillStep(student, teacher, {'wavelet': loss}, 10, 1)


def test_every_sample_counts_in_every_band():
    step = step_of(WaveletLoss(0.5, levels=3))
    lq, gt = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    sr, teacher = step.student(lq), step.teachers['teacher'].net(lq)
    expected = 0.0
    for own, other in zip(sr.detach().numpy(), teacher.numpy(), strict=True):
        for channel in range(3):
            pairs = zip(bands_by_hand(own[channel], 3), bands_by_hand(other[channel], 3), strict=True)
            expected += 0.5 * sum(np.abs(a - b).mean() for a, b in pairs) / 9
    loss = step(lq, gt, 1).losses['l_wavelet']
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()
    assert step.student.conv_first.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in step.teachers['teacher'].net.parameters())


def test_a_patch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match='5 levels need an HR patch that 32 divides: 16'):
        step_of(WaveletLoss(levels=5))
