"""Knowledge distillation for image super-resolution, as a BasicSR plug-in.

This import is light. ``import mipkd_sr.register`` repairs BasicSR 1.4.2 for today's Python stack and registers the
package's architectures, data sets, losses, metrics and models with BasicSR, whose build functions then find them.
"""

__version__ = '0.1.0'
