"""Loss modules, one method a file; each is an ``Objective`` and registered with BasicSR's LOSS_REGISTRY."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from mipkd_sr.losses.at_loss import ATLoss
from mipkd_sr.losses.crosskd_loss import CrossKDLoss
from mipkd_sr.losses.csd_loss import CSDLoss
from mipkd_sr.losses.dckd_loss import DistributionMappingLoss, DynamicContrastiveLoss
from mipkd_sr.losses.dukd_loss import AugmentationLoss, DUKDLoss
from mipkd_sr.losses.eco_loss import ECOLoss
from mipkd_sr.losses.fakd_loss import FAKDLoss
from mipkd_sr.losses.fitnet_loss import FitNetLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from mipkd_sr.losses.perceptual_loss import PerceptualLoss
from mipkd_sr.losses.rkd_loss import RKDLoss
from mipkd_sr.losses.wavelet_loss import WaveletLoss

__all__ = [
    'ATLoss',
    'AugmentationLoss',
    'CSDLoss',
    'CrossKDLoss',
    'DUKDLoss',
    'DistributionMappingLoss',
    'DynamicContrastiveLoss',
    'ECOLoss',
    'FAKDLoss',
    'FitNetLoss',
    'LogitsKDLoss',
    'MiPKDLoss',
    'PerceptualLoss',
    'RKDLoss',
    'WaveletLoss',
]
