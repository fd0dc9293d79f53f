"""A ``type`` that a derived file or ``--force_yml`` changes: what the old and the new class both take is kept."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mipkd_sr.options.forms import Component
from mipkd_sr.options.keys import DATASET, LOSS, METRIC, NETWORK, OPTIMIZER, SCHEDULER
from mipkd_sr.options.registries import DATASET_REGISTRY, registered

COMPONENTS: tuple[tuple[str, Component], ...] = (
    (r'network_\w+', NETWORK),
    (r'network_t:[^:]+', NETWORK),
    (r'networks:[^:]+:network', NETWORK),
    (r'train:\w+_opt', LOSS),
    (r'train:optim_\w+', OPTIMIZER),
    (r'train:scheduler\w*', SCHEDULER),
    (r'val:metrics:[^:]+', METRIC),
)
"""Where in an option file a mapping with a ``type`` is which component."""


def arguments_of(key: str, kind: object) -> set[str] | None:
    """Names of the options that the class called ``kind`` takes at ``key``; None where that is not known."""
    if re.fullmatch('datasets:[^:]+', key):
        owner = registered(DATASET_REGISTRY).get(str(kind))
        return None if owner is None else {*DATASET.keys, *getattr(owner, 'own_options', ())}
    component = next((component for pattern, component in COMPONENTS if re.fullmatch(pattern, key)), None)
    if component is None or kind not in list(component.names()):
        return None
    return {*inspect.signature(component.find(str(kind))).parameters, *(component.extra or ())}


def not_taken(key: str, kind: object, names: Iterable[str]) -> list[str]:
    """Of ``names``, that were given for another type at ``key``, those that the type ``kind`` does not take.

    Of a type that is not known none is kept: it takes nothing, or is refused later with its own message.
    """
    taken = arguments_of(key, kind) or set()
    return [name for name in names if name not in taken]


def at(options: Mapping[str, Any], key: str) -> Any:
    """What stands at ``key``, names joined by colons; None if it is not there."""
    found: Any = options
    for name in key.split(':'):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
