"""Comparing one value of an option file with its key, or with the argument that it is for."""

import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mipkd_sr.options.forms import REQUIRED, Key
from mipkd_sr.runtime.errors import OptionError, advice, shown


def no_such(what: str, name: object, names: Iterable[str]) -> str:
    """The message that there is no ``what`` (a network, a choice) of this name, with advice."""
    hint = '' if what in ('choice', 'teacher') else ' Is it yours? Add import: [your_package].'
    return f'there is no {what} {shown(name)}; {advice(name, names, "there are")}{hint}'


def check_value(value: Any, key: Key, path: str) -> Any:
    """The value that stands at ``path`` of an option file, as its key's type."""
    if value is None and key.default is None:
        return None
    if not finite(value):
        raise OptionError(path, f'must be finite, not {shown(value)}.')
    if not FITS[key.kind](value):
        raise OptionError(path, f'must be {NAMES[key.kind]}, not {shown(value)}.')
    if key.choices and not any(value is choice or (value == choice and value is not True) for choice in key.choices):
        raise OptionError(path, no_such('choice', value, [str(choice) for choice in key.choices]))
    if key.kind == 'list':
        if key.length is not None and len(value) != key.length:
            raise OptionError(path, f'must have {key.length} entries, not {len(value)}.')
        entry = replace(key, kind=key.items, default=REQUIRED, choices=(), items='any', length=None)
        return [check_value(item, entry, f'{path}:{number}') for number, item in enumerate(value)]
    if key.kind in ('int', 'float'):
        _check_range(value, key, path)
    return int(value) if key.kind == 'int' else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


FITS: dict[str, Callable[[Any], bool]] = {
    'str': lambda value: isinstance(value, str),
    'bool': lambda value: isinstance(value, bool),
    'int': lambda value: _is_number(value) and value == int(value),
    'float': _is_number,
    'list': lambda value: isinstance(value, list | tuple),
    'any': lambda value: True,
}
"""Whether a finite value is of a kind."""
NAMES = {'str': 'text', 'bool': 'true or false', 'int': 'a whole number', 'float': 'a number', 'list': 'a list'}


def finite(value: Any) -> bool:
    """Whether every number in a value, or in nested lists and mappings, is finite, also as a floating-point number."""
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, int | float) or abs(value) <= sys.float_info.max


LARGEST = 2**63 - 1
"""The greatest whole number, unless a key says otherwise."""


def _check_range(value: float, key: Key, path: str) -> None:
    greatest = LARGEST if key.kind == 'int' and key.maximum is None else key.maximum
    for bound, words, is_beyond in (
        (key.minimum, 'at least', operator.lt),
        (key.above, 'greater than', operator.le),
        (greatest, 'at most', operator.gt),
        (key.below, 'less than', operator.ge),
    ):
        if bound is not None and is_beyond(value, bound):
            raise OptionError(path, f'must be {words} {bound}, not {shown(value)}.')


def check_counts(value: Any, greatest: int, path: str) -> None:
    """Refuse whole numbers, also in lists, beyond ``greatest``."""
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_counts(item, greatest, f'{path}:{number}')
    elif isinstance(value, int) and abs(value) > greatest:
        raise OptionError(path, f'must be at most {greatest}, not {shown(value)}.')


def check_argument(value: Any, argument: inspect.Parameter, path: str) -> None:
    """Compare a value with the argument's annotation, or, where BasicSR gives none, with its default.

    Only plain types, and lists of them, are compared; anything else is left to the class.
    """
    annotation = annotation_of(argument)
    if annotation is None:
        return
    if (reason := _misfit(value, annotation)) is not None:
        raise OptionError(path, f'must be {reason}, not {shown(value)}.')


def annotation_of(argument: inspect.Parameter) -> Any:
    """An argument's annotation, or the type that its default shows; None if neither tells."""
    if argument.annotation is not inspect.Parameter.empty:
        return argument.annotation
    if argument.default in (None, inspect.Parameter.empty):
        return None
    return _type_of(argument.default)


def _type_of(default: Any) -> Any:
    """The type of which a default is one value."""
    if isinstance(default, int | float) and not isinstance(default, bool):
        return float  # BasicSR writes whole defaults, such as res_scale=1, for real numbers
    if isinstance(default, list | tuple) and default:
        kinds = {_type_of(item) for item in default}
        return Sequence[kinds.pop()] if len(kinds) == 1 else Sequence  # type: ignore[misc]
    return type(default)


KINDS = {bool: 'bool', int: 'int', float: 'float', str: 'str'}


def _misfit(value: Any, annotation: Any) -> str | None:
    """What a value of this type must be, in words, if ``value`` does not fit; None if it fits or the type is
    unknown."""
    origin, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):  # of `float | Tensor`, a YAML file can give the float alone
        reasons = [_misfit(value, part) for part in inner if not is_beyond_yaml(part)]
        return None if None in reasons or not reasons else ' or '.join(dict.fromkeys(filter(None, reasons)))
    if origin is type(None):
        return None if value is None else 'absent'
    if origin in KINDS:
        return None if FITS[KINDS[origin]](value) else NAMES[KINDS[origin]]
    if origin not in (list, tuple, Sequence):
        return None
    if not isinstance(value, list | tuple):
        return 'a list'
    if origin is tuple and inner and Ellipsis not in inner and len(inner) != len(value):
        return f'a list of {len(inner)} entries'
    items = inner if origin is tuple and Ellipsis not in inner else inner[:1] * len(value)
    for item, part in zip(value, items, strict=False):
        if (reason := _misfit(item, part)) is not None:
            return f'a list whose entries are each {reason}'
    return None


def is_beyond_yaml(annotation: Any) -> bool:
    """Whether no value of a YAML file is of this type."""
    origin = typing.get_origin(annotation) or annotation
    return origin not in (*KINDS, list, tuple, Sequence, dict, Mapping, type(None), typing.Any)
