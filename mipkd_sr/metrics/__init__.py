"""PSNR and SSIM on the Y channel: BasicSR's, registered by importing them."""

from basicsr.metrics import calculate_psnr, calculate_ssim

__all__ = ['calculate_psnr', 'calculate_ssim']
