"""Writes out the defaults of options, so that these mean the same after a default has changed."""

import inspect
from collections.abc import Callable
from typing import Any

from mipkd_sr.options.keys import LOSS, NETWORK


def spell_out(opt: dict[str, Any]) -> dict[str, Any]:
    """Add to each network and loss the arguments that it leaves at their defaults, in place; returns ``opt``, checked
    before.

    Optimizers and schedulers are left alone: torch and BasicSR treat a given argument differently from an absent one.
    """
    teachers = opt.get('network_t') or {}
    several = [] if isinstance(teachers.get('type'), str) else teachers.values()
    for network in (opt.get('network_g'), *(several or [teachers])):
        if network:
            _add_defaults(network, NETWORK.find)
    for key, loss in opt.get('train', {}).items():
        if key.endswith('_opt') and loss:
            _add_defaults(loss, LOSS.find)
    return opt


def _add_defaults(component: dict[str, Any], find: Callable[[str], Any]) -> None:
    for name, parameter in inspect.signature(find(component['type'])).parameters.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        if isinstance(default, str | bool | int | float | list | None):
            component.setdefault(name, default)
