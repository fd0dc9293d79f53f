"""How long PSNR and SSIM take, here and in BasicSR."""

import numpy as np
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim

from mipkd_sr.costs.measuring import median_seconds
from mipkd_sr.costs.reading_rate import large_photograph
from mipkd_sr.metrics import psnr, ssim


def time_metrics(y_channel: bool) -> tuple[float, float]:
    """Median seconds of PSNR plus SSIM on an image of 1356 x 2040 pixels, on Y or on RGB: ours, and BasicSR's."""
    hr = large_photograph('astronaut.png')
    noise = np.random.default_rng(0).normal(0, 6, hr.shape)
    sr = np.clip(hr + noise, 0, 255).round().astype(np.uint8)

    def ours() -> None:
        psnr(sr, hr, 4, y_channel)
        ssim(sr, hr, 4, y_channel)

    def theirs() -> None:
        calculate_psnr(sr, hr, 4, test_y_channel=y_channel)
        calculate_ssim(sr, hr, 4, test_y_channel=y_channel)

    cpu = torch.device('cpu')
    return median_seconds(ours, cpu)[0], median_seconds(theirs, cpu)[0]
