"""Models: DistillModel, and on it a class a method. ``build_model`` makes one from options."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.gan_distill_model import GANDistillModel
from mipkd_sr.models.method_models import DUKDModel, MiPKDModel
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.options.registries import model_class

__all__ = ['DUKDModel', 'DistillModel', 'GANDistillModel', 'MiPKDModel', 'build_model']


def build_model(opt: TrainingOptions) -> DistillModel:
    """Build the model that ``opt['model_type']`` names.

    Raises:
        OptionError: If the options do not fit together.
    """
    return model_class(opt['model_type'])(opt)
