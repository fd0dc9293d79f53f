"""The forms that describe an option file: a value, a section, a component, a map of names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mipkd_sr.option_types import REQUIRED, Key

__all__ = ['REQUIRED', 'Component', 'Key', 'MapOf', 'OneOrNamed', 'Section', 'sets_of', 'with_own_options']


@dataclass(frozen=True)
class Section:
    """A mapping with known keys.

    Attributes:
        keys: The keys.
        patterns: Keys known by their ending, such as ``_opt``.
        optional: Whether it may be absent; a required one that is absent is taken as empty.
    """

    keys: Mapping[str, Any]
    patterns: Mapping[str, Any] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Component:
    """A mapping whose ``type`` names a class or function, and whose other keys are that one's arguments.

    Attributes:
        what: What it is called in messages.
        find: Gives the class or function for a type's name; raises KeyError if there is none.
        names: Gives all names.
        skip: Arguments that the program itself gives.
        extra: Further keys, that are not arguments.
        arguments: Keys, by name, for arguments whose signatures say too little.
        greatest: The greatest whole number for other arguments; a larger count of layers would take days.
        optional: Whether it may be absent.
    """

    what: str
    find: Callable[[str], Any]
    names: Callable[[], Iterable[str]]
    skip: tuple[str, ...] = ()
    extra: Mapping[str, Key] | None = None
    arguments: Mapping[str, Key] | None = None
    greatest: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class OneOrNamed:
    """An entry, or a mapping from names of the user's choice to entries of that form.

    Attributes:
        entry: The form of each entry: a component or a key.
    """

    entry: Any


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of the user's choice to entries of one form.

    Attributes:
        entry: The form of each entry.
        prefixes: What a name must be or start with (before its first underscore), if that matters.
        optional: Whether it may be absent.
    """

    entry: Any
    prefixes: tuple[str, ...] = ()
    optional: bool = False


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
