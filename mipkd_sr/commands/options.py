"""Print what an option file may hold: every key, and what each network, loss, metric, ... takes.

mipkd options | less                         # as Markdown; docs/options.md is this text
mipkd options --schema > schema.json         # for an editor: '# yaml-language-server: $schema=schema.json'
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument('--schema', action='store_true', help='a JSON schema (draft 7) of an option file')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mipkd_sr.options.reference import reference
    from mipkd_sr.options.schema import option_file_schema

    print(json.dumps(option_file_schema(), indent=1) if args.schema else reference().rstrip())
    return 0
