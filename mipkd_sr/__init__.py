"""Knowledge distillation for image super-resolution, as a BasicSR plug-in.

Importing this package repairs BasicSR 1.4.2 for today's Python stack and registers every architecture, data set, loss
and model of the package with BasicSR's registries, so that BasicSR's own build functions find them.
"""

import sys
from pathlib import Path

try:  # takes seconds
    from mipkd_sr import compat  # isort: skip  (must come before anything that imports basicsr)
    from mipkd_sr import archs, data, losses, metrics, models
except KeyboardInterrupt:
    name, folder = Path(sys.argv[0]).name, Path(sys.argv[0]).resolve().parent
    if not (name == '-m' or name.startswith('mipkd') or folder == Path(__file__).parent):  # -m: it is still being found
        raise  # somebody else's program, who may go on
    print('error: interrupted.', file=sys.stderr)
    sys.exit(130)

__version__ = '0.1.0'
__all__ = ['archs', 'compat', 'data', 'losses', 'metrics', 'models']
