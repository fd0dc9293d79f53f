"""When a derived file or ``--force_yml`` changes a ``type``, the options that both classes take are kept."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mipkd_sr.options.forms import Component
from mipkd_sr.options.keys import DATASET, DEGRADATION, LOSS, METRIC, NETWORK, OPTIMIZER, SCHEDULER
from mipkd_sr.options.registries import DATASET_REGISTRY, registered

COMPONENTS: tuple[tuple[str, Component], ...] = (
    (r'network_\w+', NETWORK),
    (r'network_t:[^:]+', NETWORK),
    (r'networks:[^:]+:network', NETWORK),
    (r'train:\w+_opt', LOSS),
    (r'train:optim_\w+', OPTIMIZER),
    (r'train:scheduler\w*', SCHEDULER),
    ('degradation', DEGRADATION),
    (r'val:metrics:[^:]+', METRIC),
)
"""The component that a mapping with a ``type`` is, by its place in an option file."""


def options_at(key: str, kind: object) -> set[str] | None:
    """Names of the options that the class called ``kind`` takes at ``key``; None where that is not known."""
    if re.fullmatch('datasets:[^:]+', key):
        owner = registered(DATASET_REGISTRY).get(str(kind))
        return None if owner is None else {*DATASET.keys, *getattr(owner, 'own_options', ())}
    component = next((component for pattern, component in COMPONENTS if re.fullmatch(pattern, key)), None)
    if component is None or kind not in list(component.names()):
        return None
    return {*inspect.signature(component.find(str(kind))).parameters, *(component.extra or ())}


def not_taken(key: str, kind: object, names: Iterable[str]) -> list[str]:
    """Those of ``names``, given for another type at ``key``, that the type ``kind`` does not take.

    For an unknown type all are returned; it is refused later with its own message.
    """
    taken = options_at(key, kind) or set()
    return [name for name in names if name not in taken]


def at(options: Mapping[str, Any], key: str) -> Any:
    """What stands at ``key``, names joined by colons; None if it is not there."""
    found: Any = options
    for name in key.split(':'):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
