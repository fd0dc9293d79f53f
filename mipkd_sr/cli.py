"""The command ``mipkd``: its subcommands, by name.

A subcommand is a file of ``mipkd_sr/commands``: its docstring is the help text, ``add_arguments`` gives a parser its
arguments, and ``run`` takes what was parsed and returns the exit code. ``train`` and ``test`` run ``mipkd_sr/train.py``
and ``mipkd_sr/test.py``. PyTorch and BasicSR take seconds to import: that is done when the arguments have been parsed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from mipkd_sr.commands import (
    benchmark,
    compare,
    degrade,
    demo,
    export,
    label,
    options,
    plot,
    prepare,
    quantize,
    recipes,
    table,
    upscale,
)
from mipkd_sr.commands.command_line import (
    TESTING,
    TRAINING,
    add_run_arguments,
    add_test_arguments,
    import_packages,
    new_parser,
    run_command,
    start,
)

DESCRIPTION = """Knowledge distillation for image super-resolution.

mipkd demo              # distil a student on this machine: no GPU, no data set, a few minutes
mipkd COMMAND --help    # what a command takes, with an example
"""


def add_command(
    commands: 'argparse._SubParsersAction[argparse.ArgumentParser]',
    name: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add a subcommand, whose help is the first line of its description."""
    parser = commands.add_parser(
        name,
        help=description.splitlines()[0],
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(command=run)


def run_registered(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run another command, with the package's classes and the user's registered."""
    import_module('mipkd_sr.register')
    import_packages(args)
    return run(args)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = new_parser('mipkd', DESCRIPTION)
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    add_command(commands, 'demo', str(demo.__doc__), demo.add_arguments, demo.run)
    add_command(commands, 'train', TRAINING, add_run_arguments, partial(start, 'mipkd_sr.train'))
    add_command(commands, 'test', TESTING, add_test_arguments, partial(start, 'mipkd_sr.test'))
    for module in (
        compare, table, prepare, degrade, label, upscale, export, quantize, plot, benchmark, recipes, options,
    ):  # fmt: skip
        name = module.__name__.rpartition('.')[2]
        add_command(commands, name, str(module.__doc__), module.add_arguments, partial(run_registered, module.run))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see ``run_command``."""
    args = build_parser().parse_args(argv)
    return run_command(args.command, args)


def train() -> int:
    """The command ``mipkd-train``."""
    return main(['train', *sys.argv[1:]])


def test() -> int:
    """The command ``mipkd-test``."""
    return main(['test', *sys.argv[1:]])
