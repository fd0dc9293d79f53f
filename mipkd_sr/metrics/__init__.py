"""PSNR and SSIM, LPIPS and DISTS. ``measure`` computes any metric of an option file."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from mipkd_sr.metrics import perceptual
from mipkd_sr.metrics.psnr_ssim import least_side, luma, measure, needs_hr, psnr, ssim

__all__ = ['least_side', 'luma', 'measure', 'needs_hr', 'perceptual', 'psnr', 'ssim']
