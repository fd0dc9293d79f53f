"""What the pages tell a reader to type exists: commands with their options, recipes, files."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipkd_sr.cli import build_parser
from mipkd_sr.options.recipes import recipe_file
from tests.conftest import ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md'), *ROOT.glob('experiments/**/*.md')]
COMMAND = re.compile(r'^[ >$]*(mipkd(?:-train|-test)? .*)$|`(mipkd(?:-train|-test)?\s[^`]*)`', re.MULTILINE)
FILE = re.compile(r'(?<![\w/])(?:scripts|mipkd_sr|options|tests)/[\w/.]+\.(?:py|sh|yml)\b')
OF_READERS = re.compile(r'FILE|NAME|STUDY|\bmy_|^experiments/(?!studies)')
"""Names of files that the reader has."""


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of ours, up to a pipe or a redirection."""
    for in_block, in_line in COMMAND.findall(text.replace('\\\n', ' ')):
        words = shlex.split(in_block or in_line, comments=True)
        words[0:1] = words[0].split('-')  # mipkd-train is mipkd train
        yield words[1 : next((i for i, word in enumerate(words) if word in ('|', '>', '&&')), None)]


def nothing_required(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Prose names a command without all that it needs."""
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                nothing_required(command)
    return parser


@pytest.mark.parametrize('page', sorted(PAGES), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_says_to_type_is_there(page: Path, capsys):
    homes = (ROOT, page.parent, ROOT / 'tests' / 'example_project')
    text, parser = page.read_text(encoding='utf-8'), nothing_required(build_parser())
    for words in commands(text):
        try:
            args = parser.parse_args(words)
        except SystemExit as stop:
            if stop.code:
                pytest.fail(f'{shlex.join(words)}: {capsys.readouterr().err}')
            continue
        file = getattr(args, 'opt', None) or getattr(args, 'study', None)
        if file and not OF_READERS.search(str(file)):
            assert recipe_file(str(file)) or any((home / file).is_file() for home in homes), (
                f'{shlex.join(words)}: there is no {file}'
            )
    for name in FILE.findall(text):
        assert any((home / name).is_file() for home in homes) or OF_READERS.search(name), f'there is no {name}'
