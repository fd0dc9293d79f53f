"""Comparing options with what may stand in an option file, and filling in the defaults."""

import difflib
import inspect
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, Section
from mipkd_sr.options.keys import DATASET, DATASET_KEYS, DEFAULT_DATASET, RENAMED, TRAIN
from mipkd_sr.runtime.errors import OptionError


def check(opt: dict[str, Any], form: Section) -> None:
    """Check ``opt`` against ``form`` and fill in defaults, in place.

    Raises:
        OptionError: For the first thing that is wrong.
    """
    check_form(opt, form)
    if opt['model_type'] not in MODEL_REGISTRY:
        raise OptionError('model_type', _no_such('model', opt['model_type'], MODEL_REGISTRY.keys()))
    if form is TRAIN:
        _check_training(opt)


def check_form(opt: dict[str, Any], form: Section) -> None:
    """Check the keys of ``opt`` and their types against ``form`` alone, and fill in defaults, in place.

    Raises:
        OptionError: For the first thing that is wrong.
    """
    _check_section(opt, form, '')


def _check_training(opt: dict[str, Any]) -> None:
    """What a training run needs and no single key shows."""
    train_set = opt['datasets'].get('train')
    if train_set is None:
        raise OptionError('datasets:train', 'is missing: the data set to train on.')
    gt_size, scale = train_set['gt_size'], opt['scale']
    if gt_size is None or gt_size < scale or gt_size % scale:
        raise OptionError('datasets:train:gt_size', f'must be a multiple of scale, {scale}, not {gt_size}.')
    for key in (
        'train:total_iter',
        'datasets:train:batch_size_per_gpu',
        'train:accumulation_steps',
        'logger:print_freq',
        'logger:save_checkpoint_freq',
    ):
        section: Any = opt
        for name in key.split(':')[:-1]:
            section = section[name]
        if section[key.split(':')[-1]] < 1:
            raise OptionError(key, 'must be at least 1.')
    for key in ('train:grad_clip', 'train:max_skipped_steps', 'logger:keep_last'):
        section, name = key.split(':')
        if opt[section][name] < 0:
            raise OptionError(key, 'must not be negative.')
    if 'network_t' in opt and opt['path']['pretrain_network_t'] is None:
        raise OptionError('path:pretrain_network_t', 'is missing: the file of the weights of network_t, the teacher.')
    if 'network_t' not in opt and opt['path']['pretrain_network_t'] is not None:
        raise OptionError('path:pretrain_network_t', 'is given, but there is no network_t; add it, or set this to ~.')
    for name in ('project', 'resume_id'):
        if opt['logger']['wandb'][name] is not None:
            raise OptionError(f'logger:wandb:{name}', 'is not supported; set it to ~ and use TensorBoard.')


def _no_such(what: str, name: object, names: Iterable[str]) -> str:
    return f"there is no {what} '{name}'; {_advice(name, names, 'there are')}"


def _advice(name: object, names: Iterable[str], otherwise: str) -> str:
    """The nearest right name, whatever its case, or all of them."""
    by_lower_case = {known.lower(): known for known in sorted(names)}
    near = difflib.get_close_matches(str(name).lower(), by_lower_case, 1, 0.5)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    return f'{otherwise}: {", ".join(by_lower_case.values())}.'


def _check_value(value: Any, key: Key, path: str) -> Any:
    """The value, as the key's type."""
    if value is None and key.default is None:
        return None
    fits = {
        'str': isinstance(value, str),
        'bool': isinstance(value, bool),
        'int': isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
        'float': isinstance(value, int | float) and not isinstance(value, bool),
        'list': isinstance(value, list | tuple),
        'any': True,
    }
    if not fits[key.kind]:
        name = {'str': 'text', 'bool': 'true or false', 'int': 'a whole number', 'float': 'a number', 'list': 'a list'}
        raise OptionError(path, f'must be {name[key.kind]}, not {value!r}.')
    if key.choices and value not in key.choices:
        raise OptionError(path, _no_such('choice', value, [str(choice) for choice in key.choices]))
    return int(value) if key.kind == 'int' else value


def _check_section(opt: Any, form: Section, prefix: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(prefix.rstrip(':'), f'must be a mapping of keys to values, not {opt!r}.')
    for old, new in RENAMED.items():
        if old in opt and old not in form.keys and new in form.keys:
            opt[new] = opt.pop(old)
    for name in opt:
        if name not in form.keys and not _pattern(form, name):
            raise OptionError(f'{prefix}{name}', _unknown(name, form.keys))
    for name, entry in form.keys.items():
        _check_entry(opt, name, entry, prefix)
    for name in list(opt):
        if name not in form.keys:
            _check_entry(opt, name, _pattern(form, name), prefix)


def _pattern(form: Section, name: str) -> Any:
    return next((entry for ending, entry in (form.patterns or {}).items() if str(name).endswith(ending)), None)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f'is not a key that is known here; {_advice(name, known, "known here")}'


def _check_entry(opt: dict[str, Any], name: str, entry: Any, prefix: str) -> None:
    path = f'{prefix}{name}'
    if isinstance(entry, Key):
        if name not in opt:
            if entry.default is REQUIRED:
                raise OptionError(path, f'is missing. {entry.help}')
            opt[name] = entry.default
        opt[name] = _check_value(opt[name], entry, path)
        return
    if opt.get(name) is None:
        if isinstance(entry, Section) and not entry.optional:
            opt[name] = {}
        elif entry.optional:
            opt.pop(name, None)
            return
        else:
            raise OptionError(path, 'is missing.')
    if isinstance(entry, Section):
        _check_section(opt[name], entry, f'{path}:')
    elif isinstance(entry, Component):
        _check_component(opt[name], entry, path)
    else:
        _check_map(opt[name], entry, path)


def _check_map(opt: Any, form: MapOf, path: str) -> None:
    if not isinstance(opt, dict) or not opt:
        raise OptionError(path, f'must be a mapping with at least one entry, not {opt!r}.')
    for name in opt:
        if form.prefixes and str(name).split('_')[0] not in form.prefixes:
            allowed = ' or '.join(f'{prefix} or {prefix}_NAME' for prefix in form.prefixes)
            raise OptionError(f'{path}:{name}', f'is not known here; entries are called {allowed}.')
        entry = form.entry
        if entry is DATASET:
            _check_dataset(opt[name], f'{path}:{name}')
        else:
            _check_entry(opt, name, entry, f'{path}:')


def _check_dataset(opt: Any, path: str) -> None:
    """A data set class is given the whole mapping, so BasicSR's own keys are known and a user's class may have more."""
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping of keys to values, not {opt!r}.')
    kind = opt.get('type', DEFAULT_DATASET)
    if kind not in DATASET_REGISTRY:
        raise OptionError(f'{path}:type', _no_such('data set', kind, DATASET_REGISTRY.keys()))
    of_basicsr = dict(iter(DATASET_REGISTRY))[kind].__module__.startswith(('basicsr.', 'mipkd_sr.'))
    own_keys = None if of_basicsr else {'': Key('any', "The data set class's own.")}
    _check_section(opt, Section(DATASET_KEYS, own_keys), f'{path}:')


def _check_component(opt: Any, form: Component, path: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping with a type, not {opt!r}.')
    if not isinstance(opt.get('type'), str):
        raise OptionError(f'{path}:type', f'is missing; name one of: {", ".join(sorted(form.names()))}.')
    try:
        target = form.find(opt['type'])
    except KeyError:
        raise OptionError(f'{path}:type', _no_such(form.what, opt['type'], form.names())) from None
    arguments, is_open = _arguments(target)
    for name in form.skip:
        arguments.pop(name, None)
    extra = form.extra or {}
    for name, value in opt.items():
        if name == 'type':
            continue
        if name in extra:
            _check_value(value, extra[name], f'{path}:{name}')
        elif name in arguments:
            _check_argument(value, arguments[name], f'{path}:{name}')
        elif not is_open:
            raise OptionError(f'{path}:{name}', _unknown(name, [*arguments, *extra]))
    for name, argument in arguments.items():
        if argument.default is inspect.Parameter.empty and name not in opt:
            raise OptionError(f'{path}:{name}', f'is missing; {opt["type"]} needs it.')


def _arguments(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a class or function, and whether it takes any others.

    BasicSR's ``**kwargs`` swallow misspelt keys, so they do not count as taking others.
    """
    arguments: dict[str, inspect.Parameter] = {}
    is_open = False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = not target.__module__.startswith(('basicsr.', 'mipkd_sr.'))
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = parameter
    return arguments, is_open


def _check_argument(value: Any, argument: inspect.Parameter, path: str) -> None:
    """Compare a value with the argument's annotation, or, where BasicSR gives none, with the type of its default.

    Only plain types are compared; anything else is left to the class.
    """
    if argument.annotation is not inspect.Parameter.empty:
        annotation = argument.annotation
        kinds = {_kind(typing.get_origin(part) or part) for part in _union_members(annotation)}
    elif argument.default in (None, inspect.Parameter.empty):
        return
    else:
        kinds = {_kind(type(argument.default))}
        if 'int' in kinds:  # BasicSR writes whole defaults, such as res_scale=1, for real numbers
            kinds.add('float')
    plain = kinds - {'any', 'none'}  # of `float | Tensor`, a YAML file can give the float alone
    if not plain or (value is None and 'none' in kinds):
        return
    for kind in sorted(plain):
        try:
            _check_value(value, Key(kind, '', REQUIRED), path)
            return
        except OptionError as error:
            problem = error
    raise problem


def _union_members(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _kind(python_type: Any) -> str:
    """The name under which ``_check_value`` knows a type."""
    if python_type in (bool, int, float, str):
        return python_type.__name__
    if python_type in (list, tuple, Sequence):
        return 'list'
    return 'none' if python_type is type(None) else 'any'
