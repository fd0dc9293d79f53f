"""Import this to register the package's architectures, data sets, losses, metrics and models with BasicSR."""

from mipkd_sr import archs, data, losses, metrics, models

__all__ = ['archs', 'data', 'losses', 'metrics', 'models']
