"""PSNR and SSIM, LPIPS and DISTS. ``measure`` computes any metric of an option file."""

from mipkd_sr.metrics import perceptual
from mipkd_sr.metrics.psnr_ssim import least_side, luma, measure, psnr, ssim

__all__ = ['least_side', 'luma', 'measure', 'perceptual', 'psnr', 'ssim']
