"""Knowledge distillation for image super-resolution, as a BasicSR plug-in and as a library.

This import is light. ``import mipkd_sr.register`` repairs BasicSR 1.4.2 for today's Python stack and registers the
package's architectures, data sets, losses, metrics and models with BasicSR, whose build functions then find them.
``load_student``, ``upscale`` and ``Distiller`` are those of ``mipkd_sr.api``, imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipkd_sr.api import Distiller, load_student, upscale

__version__ = '0.1.0'
__all__ = ['Distiller', '__version__', 'load_student', 'upscale']


def __getattr__(name: str) -> Any:
    """What of ``mipkd_sr.api`` is asked for."""
    if name in __all__:
        return getattr(import_module('mipkd_sr.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
