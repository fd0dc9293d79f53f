"""A model class for each of the two methods that the package is for."""

from basicsr.utils.registry import MODEL_REGISTRY

from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from mipkd_sr.models.distill_model import DistillModel


@MODEL_REGISTRY.register()
class DUKDModel(DistillModel):
    """A DistillModel that trains with DUKD: its options must name a DUKDLoss; further objectives may stand beside."""

    required_objectives = (DUKDLoss,)


@MODEL_REGISTRY.register()
class MiPKDModel(DistillModel):
    """A DistillModel that trains with MiPKD: its options must name a MiPKDLoss; further objectives may stand beside."""

    required_objectives = (MiPKDLoss,)
