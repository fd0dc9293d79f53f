"""The reference of option files, as Markdown: every key, and what each registered class takes."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mipkd_sr.options.checking import arguments_of
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section
from mipkd_sr.options.keys import DATASET, DEGRADATION, LOSS, METRIC, NETWORK, OPTIMIZER, SCHEDULER, TEST, TRAIN
from mipkd_sr.options.registries import DATASET_REGISTRY, MODEL_REGISTRY, module_of
from mipkd_sr.options.values import NAMES, annotation_of

PREAMBLE = """# Option files

Written by `mipkd options > docs/options.md`. `mipkd options --schema > schema.json` gives the same to an editor: put
`# yaml-language-server: $schema=schema.json` on an option file's first line.

An option file is BasicSR's YAML with one key more, `base`: a file, or a list of files, that it extends. Mappings are
merged key by key. Where a `type` differs, what the new class takes too is kept, and a note names it with what is
dropped. `{scale}` in a text stands for the run's scale.
`-opt` takes a file, or the name of a recipe of the package (`mipkd recipes`).

Relative paths belong to the run's root, as do `experiments/` and `results/`: the folder that holds the option file's
`options/` folder; else the option file's own folder; for a recipe named without its file the current folder; or the one
that `--root` names. Nothing is looked for anywhere else. `mipkd demo` puts the demo's data and its teacher there.

`=` means required, `~` absent. A key that is not known is refused with the nearest right one.
"""
THEIRS = ('basicsr.', 'torch.')
"""Modules that are documented elsewhere; only names and arguments of their classes are listed."""
OPTIMIZERS = '## Optimizers'
"""The heading under which the text depends on the installed PyTorch."""


def reference() -> str:
    """The whole reference."""
    lines = [PREAMBLE, '## Training\n', *_table(_rows(TRAIN, '')), '## Testing\n', *_table(_rows(TEST, ''))]
    lines += ['## Data sets\n', 'What stands under each entry of `datasets`.\n', *_table(_rows(DATASET, ''))]
    lines += [*_classes(dict(iter(DATASET_REGISTRY)).items()), '', '## Models\n', 'Values of `model_type`.\n']
    lines += [*_classes(dict(iter(MODEL_REGISTRY)).items()), '']
    for kind, registry in (('model', MODEL_REGISTRY), ('data set', DATASET_REGISTRY)):
        for name, target in dict(iter(registry)).items():
            if own := getattr(target, 'own_options', None):
                lines += [f'### The {kind} `{name}` also takes\n', *_table(_rows(Section(dict(own)), ''))]
    for title, form, where in (
        ('## Networks', NETWORK, '`network_g`, `network_t`, and `network` of each entry of `networks`.'),
        ('## Losses', LOSS, 'Every key of `train` that ends in `_opt` is a term of the loss; they are summed.'),
        ('## Degradations', DEGRADATION, '`degradation`: how LR images are made of HR images that have none.'),
        ('## Metrics', METRIC, 'Entries of `val: metrics`.'),
        ('## Schedulers', SCHEDULER, '`train: scheduler`.'),
        (OPTIMIZERS, OPTIMIZER, "`train: optim_g`; any of PyTorch's. These are the installed one's."),
    ):
        lines += [f'{title}\n', f'{where}\n', *_component(form)]
    return '\n'.join(lines).rstrip() + '\n'


def _rows(form: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and help of everything in a section, those of its own sections after it."""
    entries = {**form.keys, **{f'...{ending}': entry for ending, entry in (form.patterns or {}).items()}}
    for name, entry in entries.items():
        key = f'{prefix}{name}'
        named = isinstance(entry, OneOrNamed)
        if isinstance(entry, OneOrNamed):
            entry = entry.entry
        if isinstance(entry, Key):
            yield key, _kind(entry) + (', or one by name' if named else ''), _default(entry.default), entry.help
        elif isinstance(entry, Component):
            more = ', or several by name' if named else ''
            yield key, entry.what + more, '~' if entry.optional else '=', 'See below.'
        elif isinstance(entry, MapOf):
            yield from _map_rows(key, entry)
        else:
            yield from _rows(entry, f'{key}:')


def _map_rows(key: str, form: MapOf) -> Iterator[tuple[str, str, str, str]]:
    names = ' or '.join(f'{prefix}, {prefix}_NAME' for prefix in form.prefixes) or 'any name'
    inner = form.entry
    what = 'data set' if inner is DATASET else inner.what if isinstance(inner, Component) else 'mapping'
    yield key, f'{what}s by name', '~' if form.optional else '=', f'Names: {names}.'
    if isinstance(inner, Section) and inner is not DATASET:
        yield from _rows(inner, f'{key}:NAME:')


def _table(rows: Iterable[tuple[str, str, str, str]], first: str = 'key') -> list[str]:
    cells = [[f'`{name}`', kind, f'`{default}`', text] for name, kind, default, text in rows]
    if not cells:
        return []
    lines = [f'| {first} | type | default | what |', '|---|---|---|---|']
    return [*lines, *('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in cells), '']


def _kind(key: Key) -> str:
    names = {**NAMES, 'any': 'any'}
    text = names[key.kind].removeprefix('a ')
    if key.kind == 'list':
        count = '' if key.length is None else f'{key.length} '
        text = f'list of {count}' + ('entries' if key.items == 'any' else f'{names[key.items].removeprefix("a ")}s')
    if key.choices:
        text = ', '.join(_default(choice) for choice in key.choices)
    bounds = (
        ('at least', key.minimum),
        ('more than', key.above),
        ('at most', key.maximum),
        ('less than', key.below),
    )
    return ', '.join([text, *(f'{words} {_bound(value)}' for words, value in bounds if value is not None)])


def _bound(value: float) -> str:
    powers = {2**63 - 1: '2^63 - 1', 2**16: '65536', 10**9: '10^9'}
    return powers.get(int(value), f'{value:g}') if value == int(value) else f'{value:g}'


def _default(value: Any) -> str:
    if value is REQUIRED or value is inspect.Parameter.empty:
        return '='
    if value is None:
        return '~'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(_default, value))}]'
    return str(value) if value != '' else "''"


def _summary(target: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = inspect.getdoc(target) or ''
    paragraph = ' '.join(text.partition('\n\n')[0].split())
    return re.split(r'(?<=\.) ', paragraph)[0]


def _classes(found: Iterable[tuple[str, Any]]) -> list[str]:
    return [f'- `{name}`: {_summary(target) or "BasicSR has no description."}' for name, target in sorted(found)]


def _component(form: Component) -> Iterator[str]:
    if form.extra:
        yield f'Every {form.what} also takes:\n'
        yield from _table((name, _kind(key), _default(key.default), key.help) for name, key in form.extra.items())
    found = {name: form.find(name) for name in sorted(form.names())}
    names: dict[Any, list[str]] = {}
    for name, target in found.items():
        names.setdefault(target, []).append(f'`{name}`')
    for target, own in names.items():
        if not module_of(target).startswith(THEIRS) or form in (METRIC, SCHEDULER):
            yield f'### {", ".join(own)}\n'
            yield f'{_summary(target)}\n'
            yield from _table(_argument_rows(form, target), 'argument')
    others = {name: target for name, target in found.items() if module_of(target).startswith(THEIRS)}
    if form in (METRIC, SCHEDULER) or not others:
        return
    yield f'### {"Those of PyTorch" if form is OPTIMIZER else "Those of BasicSR"}\n'
    for name, target in others.items():
        arguments = arguments_of(target)[0]
        taken = [_signature(argument) for key, argument in arguments.items() if key not in form.skip]
        yield f'- `{name}`: ' + (', '.join(taken) or 'nothing') + '.'
    yield ''


def _signature(argument: inspect.Parameter) -> str:
    default = _default(argument.default)
    return f'`{argument.name}`' if default == '=' else f'`{argument.name}: {default}`'


def _argument_rows(form: Component, target: Any) -> Iterator[tuple[str, str, str, str]]:
    texts = argument_texts(inspect.getdoc(target) or '')
    known: Mapping[str, Key] = form.arguments or {}
    for name, argument in arguments_of(target)[0].items():
        if name in form.skip:
            continue
        if name in known:
            yield name, _kind(known[name]), _default(argument.default), known[name].help
            continue
        annotation = annotation_of(argument)
        kind = 'any' if annotation is None else inspect.formatannotation(annotation).strip('\'"')
        yield (
            name,
            kind.replace('collections.abc.', '').replace('typing.', ''),
            _default(argument.default),
            texts.get(name, ''),
        )


def argument_texts(docstring: str) -> dict[str, str]:
    """What the ``Args`` of a Google-style docstring say of each argument, each on one line."""
    _, _, rest = docstring.partition('Args:\n')
    found: dict[str, str] = {}
    name = ''
    for line in rest.splitlines():
        if line.strip() and not line.startswith(' '):
            break
        if match := re.match(r' {4}(\w+)(?: \([^)]*\))?: ?(.*)', line):
            name, found[match[1]] = match[1], match[2].strip()
        elif name and line.strip():
            found[name] += f' {line.strip()}'
    return found
