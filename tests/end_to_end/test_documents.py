"""What the pages tell a reader to type exists: commands with their options, recipes, files. And they read well."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipkd_sr.cli import build_parser
from mipkd_sr.options.recipes import recipe_file
from tests.conftest import ROOT

COMMAND = re.compile(r'^[ >$]*(mipkd(?:-train|-test)? .*)$|`(mipkd(?:-train|-test)?\s[^`]*)`', re.MULTILINE)
FILE = re.compile(r'(?<![\w/])(?:scripts|mipkd_sr|options|tests)/[\w/.]+\.(?:py|sh|yml)\b')
GUIDES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md')]
PAGES = [*GUIDES, *ROOT.glob('experiments/**/*.md')]
MOST_WORDS = 22
"""That a sentence of a page may have on average."""
OF_READERS = re.compile(r'FILE|NAME|STUDY|\bmy_|^experiments/(?!studies)')
"""Names of files that the reader has."""


def sentences(page: str) -> Iterator[str]:
    """The sentences of a Markdown page's text: without headings, tables, blocks of code and the targets of links."""
    text = re.sub(r'^```.*?^```$', '', page, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r'`[^`]*`', 'code', re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text))
    lines = [
        '' if re.match(r' *[|#<]|    ', line) else re.sub(r'^ *(?:[-*]|\d+\.) ', '\n', line)
        for line in text.splitlines()
    ]
    for paragraph in re.split(r'\n\s*\n', '\n'.join(lines)):
        yield from filter(None, re.split(r'(?<=[.!?])[)*"]*\s+', paragraph.strip()))


def test_sentences_are_counted_without_what_is_no_text():
    page = '# Title\n\nOne two. Three `mipkd train -opt FILE` [four](five/six.md)!\n\n| a | b |\n\n- Seven\n  eight.\n'
    assert [len(sentence.split()) for sentence in sentences(page + '\n```\nnine\n```\n')] == [2, 3, 2]


@pytest.mark.parametrize(
    'page',
    sorted(page for page in GUIDES if page.name != 'options.md'),
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_has_short_sentences(page: Path):
    lengths = [len(sentence.split()) for sentence in sentences(page.read_text(encoding='utf-8'))]
    average = sum(lengths) / len(lengths)
    assert average <= MOST_WORDS, (
        f'a sentence has {average:.1f} words on average; split the longest: {sorted(lengths)[-5:]}'
    )


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
