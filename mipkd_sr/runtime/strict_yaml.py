"""YAML as people mean it. What nobody can mean is refused in one sentence, with its line.

It is PyYAML's safe subset, with these differences. A number may be written ``1e-4``. A key is text, as it is written,
and must not occur twice. A date is text. A value that holds itself, or thousands of others by aliases, is refused.
"""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from mipkd_sr.runtime.errors import shown

TAG = 'tag:yaml.org,2002:'
PLAIN = ('null', 'bool', 'int', 'float', 'str', 'seq', 'map')
"""The kinds of value that there are."""
DEEPEST, LARGEST = 50, 100_000
"""Levels of nesting and number of values, with aliases written out, that a file may have."""


class _Loader(yaml.SafeLoader):
    yaml_constructors = {  # noqa: RUF012  (so PyYAML has it)
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(TAG) in PLAIN
    }
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f'{TAG}timestamp']
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
            # PyYAML's constructors raise what Python raises for a value that is not what its tag says
            reason = f'{shown(node.value)} is no value; put it in quotes if it is text'
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None
        if isinstance(value, str) and any(c == '\0' or '\ud800' <= c <= '\udfff' for c in value):
            reason = f'{shown(value)} holds a character that no name or text can have'
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):  # !!map before something else
            return super().construct_mapping(node, deep)  # raises
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, 'a key must be text', key.start_mark)
            if key.value in seen and key.tag != f'{TAG}merge':
                reason = f'{key.value}: stands twice; remove one'
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)  # puts in what << names
        for key, _ in node.value:
            key.tag = f'{TAG}str'
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML follows, wants a dot and a signed exponent in a number with an exponent.
_Loader.add_implicit_resolver(f'{TAG}float', re.compile(r'^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$'), list('-+0123456789.'))


def parse_yaml(text: str) -> Any:
    """The value that a YAML text holds; None if it is empty.

    Raises:
        ValueError: If it is not YAML, or not of the kind described above. The message says why and in which line.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        _size(value, {}, 0)
    except RecursionError:
        raise ValueError('it nests too deeply') from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f'it holds the character {error.character!r}, which is not allowed') from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f' (line {mark.line + 1})' if mark else ''
        problem = ' '.join((error.problem or str(error)).split())
        if "character '\\t'" in problem:
            problem = 'a tab stands where spaces must be'
        raise ValueError(f'{problem}{where}') from None
    except yaml.YAMLError as error:
        raise ValueError(' '.join(str(error).split())) from None
    return value


def _size(value: Any, known: dict[int, int], depth: int) -> int:
    """The number of values in nested mappings and lists, each counted as often as it is reached."""
    if depth > DEEPEST:
        raise ValueError(f'it holds itself, or nests more than {DEEPEST} deep')
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known, depth + 1) for item in items)
        if known[id(value)] > LARGEST:
            raise ValueError(f'it holds more than {LARGEST:,} values, as aliases repeat them')
    return known[id(value)]


def read_yaml(file: str | os.PathLike[str]) -> Any:
    """The value in a YAML file.

    Raises:
        ValueError: If it is absent, no text, or not YAML as described above. The message names it.
    """
    try:
        if not Path(file).is_file():
            raise ValueError(f'{file}: cannot be read (there is no such file)')
        text = Path(file).read_text(encoding='utf-8')
    except OSError as error:
        raise ValueError(f'{file}: cannot be read ({error.strerror})') from None
    except UnicodeDecodeError:
        raise ValueError(f'{file}: is not a text file') from None
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f'{file}: is not valid YAML: {error}') from None
