"""Knowledge distillation for image super-resolution, as a BasicSR plug-in.

Importing this package repairs BasicSR 1.4.2 for today's Python stack and registers every architecture, data set, loss
and model of the package with BasicSR's registries, so that BasicSR's own build functions find them.
"""

from mipkd_sr import compat  # isort: skip  (must come before anything that imports basicsr)
from mipkd_sr import archs, data, losses, metrics, models

__version__ = '0.1.0'
__all__ = ['archs', 'compat', 'data', 'losses', 'metrics', 'models']
