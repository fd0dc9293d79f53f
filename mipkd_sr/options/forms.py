"""The forms that describe an option file: a value, a section, a component, a map of names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mipkd_sr.option_types import REQUIRED, Key

__all__ = ['REQUIRED', 'Component', 'Key', 'MapOf', 'OneOrNamed', 'Section', 'sets_of', 'with_own_options']


@dataclass(frozen=True)
class Section:
    """A mapping with known keys."""

    keys: Mapping[str, Any]  # the keys
    patterns: Mapping[str, Any] | None = None  # keys known by their ending, such as ``_opt``
    optional: bool = False  # whether it may be absent; a required one that is absent is taken as empty


@dataclass(frozen=True)
class Component:
    """A mapping whose ``type`` names a class or function, and whose other keys are that one's arguments."""

    what: str  # what it is called in messages
    find: Callable[[str], Any]  # gives the class or function for a type's name; raises KeyError if there is none
    names: Callable[[], Iterable[str]]  # gives all names
    skip: tuple[str, ...] = ()  # arguments that the program itself gives
    extra: Mapping[str, Key] | None = None  # further keys, that are not arguments
    arguments: Mapping[str, Key] | None = None  # keys, by name, for arguments whose signatures say too little
    greatest: int | None = None  # the greatest whole number for other arguments; more layers would take days
    optional: bool = False  # whether it may be absent


@dataclass(frozen=True)
class OneOrNamed:
    """An entry, or a mapping from names of the user's choice to entries of that form."""

    entry: Any  # the form of each entry: a component or a key


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of the user's choice to entries of one form."""

    entry: Any  # the form of each entry
    prefixes: tuple[str, ...] = ()  # what a name must be or start with (before its first underscore), if that matters
    optional: bool = False  # whether it may be absent


def sets_of(dataset: Any) -> list[dict[str, Any]]:
    """The options of a data set, and of those that are mixed with it (``others``)."""
    found = [dataset, *(dataset.get('others') or [])] if isinstance(dataset, dict) else []
    return [one for one in found if isinstance(one, dict)]


def with_own_options(form: Section, owner: Any) -> Section:
    """A form with the options that a user's class declares as its ``own_options``: entries by key.

    ``train:optim_d`` is one in the section ``train``.
    """
    for path, entry in getattr(owner, 'own_options', {}).items():
        form = _with_entry(form, path.split(':'), entry)
    return form


def _with_entry(form: Section, names: Sequence[str], entry: Any) -> Section:
    first, *rest = names
    if rest:
        entry = _with_entry(form.keys.get(first, Section({}, optional=True)), rest, entry)
    return replace(form, keys={**form.keys, first: entry})
