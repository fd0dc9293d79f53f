"""MATLAB's imresize, against BasicSR's and against the published LR images."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize as imresize_of_basicsr
from hypothesis import given, settings
from hypothesis import strategies as st

from mipkd_sr.imresize import imresize, imresize_uint8
from tests.conftest import SHARED_DATA


@pytest.mark.parametrize('scale', [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), 2, 3, 4])
@settings(max_examples=10, deadline=None)
@given(height=st.integers(12, 40), width=st.integers(12, 40), seed=st.integers(0, 99))
def test_equals_basicsrs(scale, height, width, seed):
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    expected = imresize_of_basicsr(image, float(scale))
    assert torch.allclose(imresize(image[None], scale)[0], expected, atol=1e-5, rtol=0)


def test_has_a_gradient():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, Fraction(1, 2)), image)


def test_constant_images_stay_constant():
    image = np.full((31, 33, 3), 97, np.uint8)
    assert (imresize_uint8(image, Fraction(1, 3)) == 97).all()


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('name', ['Set5', 'Set14', 'B100'])
def test_equals_the_published_lr_images_in_every_pixel(name, scale):
    folder = SHARED_DATA / 'benchmarks' / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there')
    for file in sorted((folder / 'HR').glob('*.png')):
        hr = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = cv2.imread(str(folder / 'LR_bicubic' / f'X{scale}' / f'{file.stem}x{scale}.png'), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(imresize_uint8(hr, Fraction(1, scale)), lr), file.name
