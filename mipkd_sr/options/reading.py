"""Option files: read safely, merged over their bases, changed from the command line, checked.

An option file is BasicSR's YAML with one key more, ``base``; ``mipkd_sr.options.reference`` says how files are merged.
If two mappings have a ``type`` and these differ, the base's options that the new type takes too are kept. The others
are dropped, and the log names them. A text that is ``{scale}`` and nothing else becomes the number; the scale is that
after the command line's changes. A training set may give ``lq_size``, the side of its LR patches, instead of
``gt_size``.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from mipkd_sr.option_types import TestingOptions, TrainingOptions
from mipkd_sr.options.changed_types import at, not_taken
from mipkd_sr.options.forms import sets_of
from mipkd_sr.options.importing import import_for
from mipkd_sr.options.recipes import find_option_file
from mipkd_sr.runtime import strict_yaml
from mipkd_sr.runtime.errors import OptionError, shown
from mipkd_sr.runtime.strict_yaml import parse_yaml

SCALE = '{scale}'
"""What stands for the scale in an option file's texts."""


@dataclass
class Options:
    """The options of one run.

    Attributes:
        data: The options, as nested mappings. ``force_options`` makes its changes to ``template``.
        file: The option file.
        origin: For each key (joined by colons) the file, or the command line, that set it last.
        template: The options as they are written, before the scale is filled in.
        files: The files that they are merged from, a later one over an earlier one.
        notes: Sentences about options that were dropped because a ``type`` was changed.
    """

    data: dict[str, Any]
    file: Path
    origin: dict[str, str] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list, compare=False)
    notes: list[str] = field(default_factory=list)
    _of_old_types: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def training(self) -> TrainingOptions:
        """``data`` of a training run, as ``load_options`` completes them, with their types."""
        return cast(TrainingOptions, self.data)

    @property
    def testing(self) -> TestingOptions:
        """``data`` of a test, likewise."""
        return cast(TestingOptions, self.data)

    def explain(self, error: OptionError) -> str:
        """The one sentence for an error, with the key and the file where it was set."""
        key = error.key
        while key and key not in self.origin:  # an absent key: name the file of what it is absent from
            key = key.rpartition(':')[0]
        return f'{self.origin.get(key, self.file)}: {error}'

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """A context in which an OptionError says the file where its key was set."""
        try:
            yield
        except OptionError as error:
            raise type(error)('', self.explain(error)) from None


def read_mapping(file: Path) -> dict[str, Any]:
    """Read one YAML file as a mapping; ``base`` is a key like any other."""
    try:
        data = strict_yaml.read_yaml(file)
    except ValueError as error:
        advice = 'correct it there' if 'is not valid YAML' in str(error) else 'give the path of an option file'
        raise OptionError('', f'{error}; {advice}.') from None
    if not isinstance(data, dict):
        raise OptionError('', f'{file}: holds no options; an option file is a mapping of keys to values.')
    return data


def _merge(into: dict[str, Any], new: Mapping[str, Any], source: str, options: Options, prefix: str = '') -> None:
    """Merge ``new`` over ``into`` in place, noting in ``options`` that ``source`` set its keys."""
    if 'type' in into and 'type' in new and into['type'] != new['type']:
        found = options._of_old_types.setdefault(prefix.rstrip(':'), {})
        found.update({name: into['type'] for name in into if name != 'type'})
    for name, value in new.items():
        key = f'{prefix}{name}'
        old = into.get(name)
        options._of_old_types.get(prefix.rstrip(':'), {}).pop(name, None)
        if key == 'import' and old:
            into[name] = [*_listed(old), *_listed(value)]
        elif isinstance(value, Mapping):
            if not isinstance(old, dict):
                into[name] = {}
            _merge(into[name], value, source, options, f'{key}:')
        else:
            into[name] = deepcopy(value)
        options.origin[key] = source


def _drop_what_new_types_do_not_take(options: Options) -> None:
    """Where a type was changed, remove and note the old type's options that the new one does not take."""
    for key, names in options._of_old_types.items():
        component = at(options.template, key)
        dropped = not_taken(key, component['type'], names) if isinstance(component, dict) else []
        for name in dropped:
            del component[name]
            for stale in [other for other in options.origin if f'{other}:'.startswith(f'{key}:{name}:')]:
                del options.origin[stale]
        if isinstance(component, dict) and names:
            kept = [f'{name}: {component[name]}' for name in names if name in component]
            told = [f'{", ".join(dropped)} is dropped'] * bool(dropped) + [f'{", ".join(kept)} is kept'] * bool(kept)
            options.notes.append(
                f'{options.origin[key]}: {key}: type is now {component["type"]}, not {next(iter(names.values()))}; of '
                f'what was set for that, {" and ".join(told)}'
            )
    options._of_old_types.clear()


def _listed(value: Any) -> list[Any]:
    """What may be one entry or a list of them, as a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def read_options(file: str | os.PathLike[str]) -> Options:
    """Read an option file and the files that it extends. Nothing is checked beyond the YAML itself.

    Args:
        file: The option file, or a shipped recipe's name.

    Raises:
        OptionError: If a file is absent, is not YAML, or extends itself.
    """
    path = find_option_file(file)
    options = Options({}, path)
    _read_into(options, path, ())
    _finish(options)
    return options


def compose_options(file: Path, bases: Iterable[Path], changes: Iterable[Mapping[str, Any]]) -> Options:
    """The options of a file that is not written: ``bases``, then ``changes``, merged in their order.

    ``file`` is the one that is said to have set the changes.
    """
    options = Options({}, file)
    for base in bases:
        _read_into(options, base.absolute(), ())
    for change in changes:
        _merge(options.template, change, str(file), options)
    _finish(options)
    return options


def with_scale(template: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are written, with ``{scale}`` filled in and ``lq_size`` turned to ``gt_size``; a new mapping."""
    scale = template.get('scale')
    if isinstance(scale, bool) or not isinstance(scale, int):
        return deepcopy(dict(template))
    opt: dict[str, Any] = _fill_in(template, scale)
    datasets = opt.get('datasets')
    for phase, dataset in datasets.items() if isinstance(datasets, dict) else ():
        if phase == 'train' and isinstance(dataset, list) and dataset and all(isinstance(one, dict) for one in dataset):
            opt['datasets'][phase] = dataset = {**dataset[0], 'others': dataset[1:]}
        for one in sets_of(dataset):
            size = one.get('lq_size')
            if isinstance(size, int):
                del one['lq_size']
                if one.setdefault('gt_size', size * scale) != size * scale:
                    key = f'datasets:{phase}:gt_size'
                    raise OptionError(key, f'is not scale x lq_size, {scale} x {size}; set one of the two to ~.')
    return opt


def _finish(options: Options) -> None:
    """Make the options from what is written: import packages, and fill in the scale."""
    with options.explaining():
        names = import_for(options.template.get('import'), options.file)
        _drop_what_new_types_do_not_take(options)
        options.data = with_scale(options.template)
    if names:
        options.data['import'] = names


def _fill_in(value: Any, scale: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _fill_in(item, scale) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill_in(item, scale) for item in value]
    if isinstance(value, str):
        return scale if value == SCALE else value.replace(SCALE, str(scale))
    return value


def _read_into(options: Options, file: Path, above: tuple[Path, ...]) -> None:
    if file in above:
        raise OptionError('', f'{above[-1]}: base: leads back to {file}; remove the circle.')
    data = read_mapping(file)
    bases = data.pop('base', None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise OptionError('', f'{file}: base: must be the path of an option file, or a list of them.')
    for base in bases:
        _read_into(options, Path(os.path.normpath(file.parent / base)), (*above, file))
    _merge(options.template, data, str(file), options)
    if file not in options.files:
        options.files.append(file)


def force_options(options: Options, entries: Iterable[str]) -> None:
    """Apply ``--force_yml``: entries such as ``train:optim_g:lr=1e-4``, values read as YAML.

    Raises:
        OptionError: If an entry is not ``key=value``, or goes through something that is not a mapping.
    """
    for entry in entries:
        keys, equals, text = entry.partition('=')
        names = [name.strip() for name in keys.split(':')]
        if not equals or not all(names):
            raise OptionError('--force_yml', f'{shown(entry)} is not of the form key:key=value.')
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise OptionError('--force_yml', f'{shown(text)} in {shown(entry)} is not valid YAML: {error}.') from None
        for depth in range(1, len(names)):
            above: Any = options.template
            for name in names[:depth]:
                above = above.get(name, {})
                if not isinstance(above, dict):
                    raise OptionError(
                        '--force_yml', f'{shown(":".join(names[:depth]))} in {shown(entry)} is not a mapping.'
                    )
        for name in reversed(names):
            value = {name: value}
        _merge(options.template, value, '--force_yml', options)
    _finish(options)


def dump_options(opt: Mapping[str, Any]) -> str:
    """The options as YAML that ``read_options`` reads back."""
    return yaml.safe_dump(_plain(opt), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
