"""Loss modules, one method a file; each is an ``Objective`` and registered with BasicSR's LOSS_REGISTRY."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from mipkd_sr.losses import (
    at_loss,
    crosskd_loss,
    csd_loss,
    dckd_loss,
    dukd_loss,
    eco_loss,
    fakd_loss,
    fitnet_loss,
    logits_kd_loss,
    mipkd_loss,
    rkd_loss,
    wavelet_loss,
)

__all__ = [
    'at_loss',
    'crosskd_loss',
    'csd_loss',
    'dckd_loss',
    'dukd_loss',
    'eco_loss',
    'fakd_loss',
    'fitnet_loss',
    'logits_kd_loss',
    'mipkd_loss',
    'rkd_loss',
    'wavelet_loss',
]
