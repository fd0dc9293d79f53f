"""PSNR and SSIM against BasicSR's, scikit-image's, and published values."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mipkd_sr.metrics import luma, measure, psnr, ssim
from tests.conftest import SHARED_DATA

RCAN = {
    ('RCAN', 2): (38.27, 0.9614),
    ('RCAN', 3): (34.74, 0.9299),
    ('RCAN', 4): (32.63, 0.9002),
    ('RCANplus', 2): (38.33, 0.9617),
    ('RCANplus', 3): (34.85, 0.9305),
    ('RCANplus', 4): (32.73, 0.9013),
}
"""What the paper's Table 2 says of the authors' own outputs for Set5."""


def photographs() -> dict[str, np.ndarray]:
    """Real images, H x W x 3."""
    return {name: np.ascontiguousarray(getattr(data, name)()[..., ::-1]) for name in ('astronaut', 'coffee', 'chelsea')}


def spoilt(image: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize('name', photographs())
@pytest.mark.parametrize('y_channel', [True, False])
@pytest.mark.parametrize('border', [0, 3])
def test_values_are_basicsrs_and_scikit_images(name, y_channel, border):
    hr = photographs()[name]
    sr = spoilt(hr)
    assert psnr(sr, hr, border, y_channel) == pytest.approx(
        calculate_psnr(sr, hr, border, test_y_channel=y_channel), abs=1e-6
    )
    assert ssim(sr, hr, border, y_channel) == pytest.approx(
        calculate_ssim(sr, hr, border, test_y_channel=y_channel), abs=1e-6
    )
    inner = slice(border, -border or None)
    a, b = ((luma(x) if y_channel else x)[inner, inner] for x in (sr, hr))
    assert psnr(sr, hr, border, y_channel) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-4)
    same = {'data_range': 255, 'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
    _, full = structural_similarity(b, a, channel_axis=None if y_channel else -1, full=True, **same)
    assert ssim(sr, hr, border, y_channel) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(12, 200), width=st.integers(12, 40), seed=st.integers(0, 99), y_channel=st.booleans())
def test_values_are_basicsrs_at_every_size(height, width, seed, y_channel):
    rng = np.random.default_rng(seed)
    hr, sr = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert psnr(sr, hr, 0, y_channel) == pytest.approx(calculate_psnr(sr, hr, 0, test_y_channel=y_channel), abs=1e-6)
    assert ssim(sr, hr, 0, y_channel) == pytest.approx(calculate_ssim(sr, hr, 0, test_y_channel=y_channel), abs=1e-6)


def test_equal_images():
    image = photographs()['coffee']
    assert psnr(image, image, 2, True) == float('inf')
    assert ssim(image, image, 2, True) == pytest.approx(1)


def test_grey_images_are_taken_as_they_are():
    grey = data.camera()
    sr = spoilt(grey)
    assert psnr(sr, grey, 2, True) == pytest.approx(
        peak_signal_noise_ratio(grey[2:-2, 2:-2], sr[2:-2, 2:-2], data_range=255), abs=1e-9
    )
    as_colour = (cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in (sr, grey))
    shrunk = 20 * np.log10(255 / 219)  # Y of grey has 219 steps
    assert psnr(*as_colour, 2, True) == pytest.approx(psnr(sr, grey, 2, True) + shrunk, abs=1e-3)


def test_what_cannot_be_measured_is_refused():
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match='must be of one size'):
        psnr(image, image[1:], 0)
    with pytest.raises(ValueError, match='nothing inside a border of 10'):
        psnr(image, image, 10)
    with pytest.raises(ValueError, match='smaller than the window'):
        ssim(image, image, 6)


def test_other_metrics_are_basicsrs():
    image = np.ascontiguousarray(photographs()['astronaut'][:200, :200])
    opt = {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'}
    expected = float(np.squeeze(calculate_niqe(image, 0)))
    assert measure({name: opt[name] for name in ('type', 'crop_border')}, image, image) == pytest.approx(expected)


@pytest.mark.parametrize(('name', 'scale'), RCAN)
def test_rcans_own_outputs_measure_as_published(name, scale):
    folder = SHARED_DATA / 'reference' / 'RCAN_Set5_SR' / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there')
    values = []
    for file in sorted((SHARED_DATA / 'benchmarks' / 'Set5' / 'HR').glob('*.png')):
        (sr_file,) = Path(folder).rglob(f'{file.stem}*x{scale}.png')
        hr, sr = cv2.imread(str(file)), cv2.imread(str(sr_file))
        hr = hr[: sr.shape[0], : sr.shape[1]]
        values.append((psnr(sr, hr, scale, True), ssim(sr, hr, scale, True)))
    measured = np.mean(values, 0)
    assert measured[0] == pytest.approx(RCAN[name, scale][0], abs=0.006)
    assert measured[1] == pytest.approx(RCAN[name, scale][1], abs=0.00006)
    assert len(values) == 5
