"""MiPKD's model class."""

from basicsr.utils.registry import MODEL_REGISTRY

from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from mipkd_sr.models.distill_model import DistillModel


@MODEL_REGISTRY.register()
class MiPKDModel(DistillModel):
    """A DistillModel that trains with MiPKD: its options must name a MiPKDLoss; further objectives may stand beside."""

    required_objectives = (MiPKDLoss,)
