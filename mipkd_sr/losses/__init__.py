"""Loss modules, one method a file; each is an ``Objective`` and registered with BasicSR's LOSS_REGISTRY."""

from mipkd_sr.losses import dukd_loss, logits_kd_loss, mipkd_loss

__all__ = ['dukd_loss', 'logits_kd_loss', 'mipkd_loss']
