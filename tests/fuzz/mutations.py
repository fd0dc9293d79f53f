"""Changes that an adversary makes to a recipe: to its options, to the text of its file, to the command line."""

# ruff: noqa: E501  (lists of hostile values read best without a line each)

import inspect
import random
import string
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from mipkd_sr.options.forms import Component, Key, MapOf, Section
from mipkd_sr.options.keys import TEST, TRAIN
from mipkd_sr.studies.paper_tables import TABLE
from mipkd_sr.studies.study_file import STUDY
from tests.fuzz.recipes import Recipe

NUMBERS = (0, -1, -2, 1, 2, 3, 5, 7, 50, 2**31, -(2**31), 2**63, 2**64, 10**30, 0.5, -0.5, 1e-9, 1e-320, 1e300, 1.5)
MILD = (0, 1, 2, 3, 4, 8, 12, 0.1, 0.25, 0.5, 1e-3, 2.0, True)
NOT_FINITE = (float('nan'), float('inf'), float('-inf'))
TEXTS = (
    '', ' ', '.', '..', '/', '~', '~nobody/x', '~no_such_user/x', '../../x', '/etc/passwd', '/dev/null', '/proc/self/mem',
    'a\0b', 'a\nb', '{', '}', '{}{}', '{0.__class__}', '{x}', '{:9999999}', '%s', '$HOME', '*', '[', 'x' * 300, 'x/' * 3000,
    'name with spaces', '# no comment', 'a: b', "it's", '"', '\\', '\u202e\u0000', 'Ünï-cödé', '画像', '🙂', '\ud800', 'é'.encode('latin1'),
    '-', '--help', '-opt', 'true', '1', '1e5', 'nan', 'None', 'con', 'http://localhost/x', 'https://x/y.pth', 'x.lmdb',
    'experiments', 'x.pth', 'x.state', '\x1b[31m', '\r', '\t',
)  # fmt: skip
VALUES = (
    None, True, False, '', 'text', [], [1], [[]], [None], ['a', 'b'], [1, 2, 3], [-1], [0.5], [float('nan')], {}, {'a': 1},
    {'type': 'X'}, {'type': None}, {1: 2}, {None: 1}, {True: 1}, {'': 1}, [{}], {'type': ['L1Loss']},
)  # fmt: skip
RAW = (
    '2024-13-45', '2024-02-30', '2001-12-14t21:59:43.10-05:00', '2024-01-02', '9' * 5000, '-' + '9' * 5000, '0x' + 'f' * 6000,
    '0b102', '1:99:99', '1:2', '&a [*a]', '&a {x: *a}', '*undefined', '!!binary "@@@"', '!!binary "aGk="',
    '!!python/name:os.system x', '!!python/object/apply:os.system [true]', '!!set {a, b}', '!!omap [a: 1]', '!!pairs [a: 1]',
    '!!timestamp x', '!!int "x"', '!!int ""', '!!float "x"', '!!bool maybe', '!!null x', '!!seq x', '!!map x', '!!str [1]',
    '{<<: 5}', '{<<: [1, 2]}', '{<<: {type: L1Loss}}', '{? {a: 1} : b}', '{? [1, 2] : b}', '{? 2024-13-45 : b}',
    '"\\x00"', '"\\ud800"', '"\\U0001F642"', '1e400', '-1e400', '.nan', '.inf', '-.inf', '0o8', '08', '1_000', '+1', '.',
    '[', ']', '{', '}', '"', "'", '`', '@', '%', '!x 1', '!<tag:x> 1', '&x', '? x', '<<', '=', '-', ': x', '# x', '|\n  text',
    '{a: 1, a: 2}', '[' * 3000, '[' * 400 + ']' * 400, '{a: ' * 400 + '1' + '}' * 400, '\x07', '\ufeff', '\x85',
    '[' + ', '.join(['&a0 [x, x]'] + [f'&a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)]) + ']',
)  # fmt: skip
"""Text for a place of a value, as it is; the last grows to 9^11 entries where aliases are written out."""

FORMS = {'train': TRAIN, 'test': TEST, 'table': TABLE, 'study': STUDY}
Path = tuple[Any, ...]


def kind_of(recipe: Recipe) -> str:
    """What a file is for, a key of ``FORMS``."""
    marks = {'train': 'train', 'rows': 'table', 'variants': 'study'}
    return next((kind for mark, kind in marks.items() if mark in recipe), 'test')


@dataclass
class Case:
    """One attack.

    Attributes:
        text: The option file.
        force: Entries of ``--force_yml``.
        kind: What the file is for, a key of ``FORMS``.
        notes: What was changed, in words.
    """

    text: bytes
    kind: str
    force: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_case(recipe: Recipe, rng: random.Random) -> Case:
    """Change a recipe one to three times."""
    opt, raws, case = deepcopy(recipe), dict[str, str](), Case(b'', kind_of(recipe))
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        case.notes.append(_mutate(opt, raws, case, rng))
    text = yaml.dump(opt, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    for placeholder, raw in raws.items():
        text = text.replace(placeholder, raw)
    if case.notes[0] == 'text':
        text, case.notes[0] = _spoil_text(text, rng)
    case.text = text.encode('utf-8', 'surrogateescape' if rng.random() < 0.5 else 'replace')
    if rng.random() < 0.02:
        place = rng.randrange(len(case.text))
        case.text = case.text[:place] + b'\xff\xfe\xe9' + case.text[place:]
        case.notes.append(f'bytes at {place}')
    return case


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(value))


def places(node: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of everything in nested mappings and lists."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def _at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def _mutate(opt: Recipe, raws: dict[str, str], case: Case, rng: random.Random) -> str:
    kind, found = rng.choice(KINDS), list(places(opt))
    if kind == 'another type':
        found = [path for path in found if path[-1] in ('type', 'model_type')] or found
    if not found:
        return 'nothing left'
    path = rng.choice(found)
    if kind == 'text':
        return 'text'
    holder, key, old = _at(opt, path[:-1]), path[-1], _at(opt, path)
    where = ':'.join(map(str, path))
    if kind == 'delete':
        del holder[key]
        return f'delete {where}'
    if kind == 'misspell key' and isinstance(holder, dict):
        new = _misspell(str(key), rng)
        holder[new] = holder.pop(key)
        return f'rename {where} to {new!r}'
    if kind == 'add':
        path, value = _absent(opt, case.kind, rng)
        _at(opt, path[:-1])[path[-1]] = value
        return f'add {":".join(map(str, path))} = {value!r:.80}'
    if kind == 'raw':
        raw = rng.choice(RAW)
        placeholder = f'RAW{len(raws)}WAR'
        raws[placeholder] = raw
        holder[key] = placeholder
        return f'set {where} to {raw[:60]!r} as it is'
    if kind == 'another type':
        found_in = [family for family in families(case.kind) if old in family and rng.random() < 0.8]
        value = rng.choice(rng.choice(found_in or families(case.kind)))
        if isinstance(holder, dict) and rng.random() < 0.5:  # its arguments would not be the other's
            holder.clear()
    else:
        value = _value(kind, old, rng)
    if kind == 'force':
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).removesuffix('...\n')
        case.force.append(f'{where}={text.strip()}')
        return f'force {where} = {value!r:.80}'
    holder[key] = value
    return f'set {where} = {value!r:.80}'


KINDS = (
    'delete', 'misspell key', 'add', 'add', 'raw', 'raw', 'text', 'force', 'number', 'number', 'number', 'not finite', 'hostile',
    'hostile', 'retype', 'retype', 'near', 'near', 'near', 'near', 'mild', 'mild', 'another type', 'another type', 'another type',
)  # fmt: skip


def _value(kind: str, old: Any, rng: random.Random) -> Any:
    """A value in place of another, of the kind asked for where that makes sense."""
    if kind == 'force':
        kind = rng.choice(('number', 'hostile', 'retype', 'near'))
    is_number = isinstance(old, int | float) and not isinstance(old, bool)
    if kind == 'number':
        return rng.choice(NUMBERS) if is_number or rng.random() < 0.3 else _value('near', old, rng)
    if kind == 'mild':
        return rng.choice(MILD) if is_number else _value('near', old, rng)
    if kind == 'not finite':
        return rng.choice(NOT_FINITE)
    if kind == 'hostile':
        text = rng.choice(TEXTS)
        return text if isinstance(text, str) else text.decode('latin1')
    if kind == 'near':
        if is_number:
            return rng.choice((-old, old + 1, old - 1, old * 2, old / 2, str(old), [old]))
        if isinstance(old, str):
            return _misspell(old, rng)
        if isinstance(old, list) and old:
            return rng.choice((old[1:], [*old, old[0]], old[::-1], old * 2, [str(item) for item in old]))
        if isinstance(old, bool):
            return rng.choice((not old, int(old), str(old)))
    return deepcopy(rng.choice(VALUES))


def _misspell(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) + 1)
    how = rng.choice(('drop', 'double', 'insert', 'case', 'swap'))
    if how == 'drop':
        return text[:place] + text[place + 1 :]
    if how == 'double':
        return text[: place + 1] + text[place : place + 1] + text[place + 1 :]
    if how == 'insert':
        return text[:place] + rng.choice(string.printable) + text[place:]
    if how == 'swap':
        return text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
    return text.swapcase()


def _absent(opt: Recipe, kind: str, rng: random.Random) -> tuple[Path, Any]:
    """A known key that is not there, and a value that it may not like."""
    found = list(_known(opt, FORMS[kind], ()))
    path, form = rng.choice(found)
    choices: list[Any] = [*NUMBERS, *NOT_FINITE, *VALUES]
    if isinstance(form, inspect.Parameter) and form.default not in (None, inspect.Parameter.empty):
        choices = [*choices, *(_value('mild', form.default, rng) for _ in choices)]
    if isinstance(form, Key):
        if form.kind in ('int', 'float'):
            choices = [*NUMBERS, *NOT_FINITE]
        elif form.kind == 'str':
            choices = [*form.choices, *(text for text in TEXTS if isinstance(text, str))]
        elif form.kind == 'bool':
            choices = [True, False, 0, 'yes']
    return path, deepcopy(rng.choice(choices))


def _known(opt: Any, form: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every key that may stand in the mappings that are there, and its form."""
    if not isinstance(opt, dict):
        return
    entries: dict[Any, Any] = {}
    if isinstance(form, Section):
        entries = dict(form.keys)
        for name in opt:
            entries.setdefault(
                name, next((form.patterns[end] for end in form.patterns or {} if str(name).endswith(end)), None)
            )
    elif isinstance(form, MapOf):
        entries = dict.fromkeys(opt, form.entry)
    elif isinstance(form, Component):
        entries = dict(form.extra or {})
        try:
            parameters = inspect.signature(form.find(opt['type'])).parameters
            entries |= {name: parameters[name] for name in parameters.keys() - {'args', 'kwargs', *form.skip}}
        except (KeyError, TypeError, ValueError):
            return
    for name in sorted(entries, key=str):
        yield (*path, name), entries[name]
        if name in opt:
            yield from _known(opt[name], entries[name], (*path, name))


def _spoil_text(text: str, rng: random.Random) -> tuple[str, str]:
    """Damage the text of a file; returns it, and what was done."""
    lines = text.split('\n')
    number = rng.randrange(len(lines))
    line = lines[number]
    how = rng.choice(
        ('cut', 'drop', 'double', 'tab', 'indent', 'outdent', 'insert', 'base', 'document', 'letter', 'crlf', 'merge')
    )
    if how == 'cut':
        return text[: rng.randrange(len(text))], 'cut short'
    if how == 'crlf':
        return text.replace('\n', '\r\n'), 'CRLF'
    if how == 'letter':
        place = rng.randrange(len(text))
        letter = rng.choice(string.printable + '\x00\x1b\u2028é')
        return text[:place] + letter + text[place + 1 :], f'{letter!r} at {place}'
    if how == 'base':
        base = rng.choice(('5', '~', '{a: 1}', '[1]', '[[x]]', '""', 'absent.yml', '.', '..', '/dev/null', 'case.yml', '"a\\0b"',
                           '~nobody/x', '[~]', '2024-13-45', 'true', '/etc/passwd', '/', 'x' * 300, '"\\ud800"'))  # fmt: skip
        return f'base: {base}\n{text}', f'base {base[:40]}'
    lines[number : number + 1] = {
        'drop': [],
        'double': [line, line],
        'tab': ['\t' + line],
        'indent': ['  ' + line],
        'outdent': [line.removeprefix('  ')],
        'insert': [line, rng.choice(RAW)],
        'document': [line, rng.choice(('---', '...', '--- x', '%YAML 9.9', '%TAG ! x', '---\n---'))],
        'merge': [line, rng.choice(('<<: 5', '  <<: {}', '<<: [1]', '    <<: {type: x}', '<<: {<<: {a: 1}}'))],
    }[how]
    return '\n'.join(lines), f'{how} line {number + 1}'


@cache
def families(kind: str) -> list[list[str]]:
    """The names that a ``type`` may have: of models, of data sets, and of each kind of component."""
    found = [sorted(DATASET_REGISTRY.keys()), sorted(MODEL_REGISTRY.keys())]
    forms: list[Any] = [FORMS[kind]]
    while forms:
        form = forms.pop()
        if isinstance(form, Section):
            forms += [*form.keys.values(), *(form.patterns or {}).values()]
        elif isinstance(form, MapOf):
            forms.append(form.entry)
        elif isinstance(form, Component) and sorted(form.names()) not in found:
            found.append(sorted(form.names()))
    return found
