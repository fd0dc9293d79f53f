"""PSNR and SSIM. ``measure`` computes any metric of an option file."""

from mipkd_sr.metrics.psnr_ssim import luma, measure, psnr, ssim

__all__ = ['luma', 'measure', 'psnr', 'ssim']
