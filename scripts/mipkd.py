"""The command ``mipkd``: its arguments are parsed before PyTorch and BasicSR are imported, so that --help is at once.

``import mipkd_sr`` registers everything with BasicSR, which takes seconds. Here the package is put in its place without
that, as far as its parsers need it, and imported in full when there is a command to run.
"""

import importlib
import importlib.util
import sys


def main() -> int:
    """Parse the arguments and run the command; returns the exit code."""
    spec = importlib.util.find_spec('mipkd_sr')
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules['mipkd_sr'] = package
    command_line = importlib.import_module('mipkd_sr.__main__')
    args = command_line.build_parser().parse_args()
    spec.loader.exec_module(package)
    return command_line.run(args)


if __name__ == '__main__':
    sys.exit(main())
