"""Models: DistillModel, and on it a class a method. ``build_model`` makes one from options."""

from typing import Any

from basicsr.utils.registry import MODEL_REGISTRY

from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.dukd_model import DUKDModel
from mipkd_sr.models.mipkd_model import MiPKDModel
from mipkd_sr.runtime.errors import OptionError

__all__ = ['RUN_AS', 'DUKDModel', 'DistillModel', 'MiPKDModel', 'build_model']

RUN_AS = {'SRModel': 'DistillModel', 'SwinIRModel': 'DistillModel'}
"""BasicSR's models, and the model here that trains as they do, but resumes exactly and runs on any device."""


def build_model(opt: dict[str, Any]) -> DistillModel:
    """Build the model that ``opt['model_type']`` names.

    Raises:
        OptionError: If it is not a DistillModel, or the options do not fit together.
    """
    model_class = MODEL_REGISTRY.get(RUN_AS.get(opt['model_type'], opt['model_type']))
    if not issubclass(model_class, DistillModel):
        raise OptionError(
            'model_type', f"'{opt['model_type']}' does not derive from DistillModel; run it with BasicSR."
        )
    return model_class(opt)
