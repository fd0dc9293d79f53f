"""Print what an option file may hold: every key, and what each network, loss, metric, ... takes.

mipkd options | less                         # as Markdown; docs/options.md is this text
mipkd options --schema > schema.json         # for an editor: '# yaml-language-server: $schema=schema.json'
mipkd options --import my_sr                 # with what a package of yours registers
"""

import argparse
import json

from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--schema', action='store_true', help='a JSON schema (draft 7) of an option file')
    add_import_argument(parser)


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.options.reference import reference
    from mipkd_sr.options.schema import option_file_schema

    print(json.dumps(option_file_schema(), indent=1) if args.schema else reference().rstrip())
    return 0
