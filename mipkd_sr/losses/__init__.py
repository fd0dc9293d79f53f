"""Loss modules, one method a file; each is an ``Objective`` and registered with BasicSR's LOSS_REGISTRY."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from mipkd_sr.losses.at_loss import ATLoss as ATLoss  # `as`: others have them from here
from mipkd_sr.losses.crosskd_loss import CrossKDLoss as CrossKDLoss
from mipkd_sr.losses.csd_loss import CSDLoss as CSDLoss
from mipkd_sr.losses.dckd_loss import DistributionMappingLoss as DistributionMappingLoss
from mipkd_sr.losses.dckd_loss import DynamicContrastiveLoss as DynamicContrastiveLoss
from mipkd_sr.losses.dukd_loss import AugmentationLoss as AugmentationLoss
from mipkd_sr.losses.dukd_loss import DUKDLoss as DUKDLoss
from mipkd_sr.losses.eco_loss import ECOLoss as ECOLoss
from mipkd_sr.losses.fakd_loss import FAKDLoss as FAKDLoss
from mipkd_sr.losses.fitnet_loss import FitNetLoss as FitNetLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss as LogitsKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss as MiPKDLoss
from mipkd_sr.losses.perceptual_loss import PerceptualLoss as PerceptualLoss
from mipkd_sr.losses.rkd_loss import RKDLoss as RKDLoss
from mipkd_sr.losses.wavelet_loss import WaveletLoss as WaveletLoss
from mipkd_sr.losses.ycbcr_loss import YCbCrL1Loss as YCbCrL1Loss
