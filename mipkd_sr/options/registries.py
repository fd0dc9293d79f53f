"""The classes that option files name by ``type``: BasicSR's registries, and two of our own.

A user registers an optimizer or a schedule of their own as everything else in BasicSR is registered::

    @SCHEDULER_REGISTRY.register()
    class MyLR(torch.optim.lr_scheduler.LRScheduler): ...
"""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.models.sr_model import SRModel as SRModel
from basicsr.utils.registry import ARCH_REGISTRY as ARCH_REGISTRY  # `as`: the folder's other files have them from here
from basicsr.utils.registry import DATASET_REGISTRY as DATASET_REGISTRY
from basicsr.utils.registry import LOSS_REGISTRY as LOSS_REGISTRY
from basicsr.utils.registry import METRIC_REGISTRY as METRIC_REGISTRY
from basicsr.utils.registry import MODEL_REGISTRY, Registry

from mipkd_sr.data.degradations import DEGRADATION_REGISTRY as DEGRADATION_REGISTRY

OPTIMIZER_REGISTRY = Registry('optimizer')
"""Optimizers of users: classes whose first argument is the parameters."""
SCHEDULER_REGISTRY = Registry('scheduler')
"""Learning rate schedules of users: classes whose first argument is the optimizer; ``step`` is called each step."""

BASICSRS_SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
"""BasicSR's names for its schedulers."""

BEYOND_YAML = ('LambdaLR', 'MultiplicativeLR', 'SequentialLR', 'ChainedScheduler', 'ReduceLROnPlateau', 'LRScheduler')
"""torch's schedules that an option file cannot give: they take functions, other schedules or a metric, or are bases."""

RUN_AS = {
    **dict.fromkeys(('SRModel', 'SwinIRModel', 'RealESRNetModel'), 'DistillModel'),
    **dict.fromkeys(('SRGANModel', 'RealESRGANModel'), 'GANDistillModel'),
}
"""BasicSR's models, and the model here that trains as they do, but resumes exactly and runs on any device."""


def registered(registry: Any) -> dict[str, Any]:
    """What a registry of BasicSR's holds, by name; what was registered with the suffix ``basicsr`` also without it."""
    held = dict(iter(registry))
    return {name.removesuffix('_basicsr'): value for name, value in held.items()} | held


def finder(registry: Any) -> Callable[[str], Any]:
    """From a name to what is registered; it raises KeyError if there is none."""
    return lambda name: registered(registry)[name]


def names_of(registry: Any) -> Callable[[], Iterable[str]]:
    """The names in a registry, whenever it is asked."""
    return lambda: registered(registry).keys()


def optimizers() -> dict[str, Any]:
    """torch's optimizers, and those that are registered, by name."""
    ours = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value) and name != 'Optimizer'}
    return ours | registered(OPTIMIZER_REGISTRY)


def schedulers() -> dict[str, Any]:
    """torch's schedules, BasicSR's in their place where the names are the same, and those that are registered."""
    of_torch = {
        name: value
        for name, value in vars(torch.optim.lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.lr_scheduler.LRScheduler)
        and name not in BEYOND_YAML
        and not name.startswith('_')
    }
    return of_torch | BASICSRS_SCHEDULERS | registered(SCHEDULER_REGISTRY)


def model_class(name: str) -> Any:
    """The model class that runs what an option file calls ``name``."""
    return registered(MODEL_REGISTRY)[RUN_AS.get(name, name)]


def types_in(opt: Any) -> Iterator[str]:
    """Every class that options name: each ``type``, and ``model_type``."""
    if isinstance(opt, Mapping):
        for key, value in opt.items():
            if key in ('type', 'model_type') and isinstance(value, str):
                yield value
            yield from types_in(value)
    elif isinstance(opt, list | tuple):
        for value in opt:
            yield from types_in(value)


def find_anywhere(name: str) -> Any:
    """What is registered as ``name`` in any registry; None if nothing is."""
    of_basicsr = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)
    for registry in (*of_basicsr, OPTIMIZER_REGISTRY, SCHEDULER_REGISTRY):
        if (target := registered(registry).get(name)) is not None:
            return target
    return None


def module_of(target: Any) -> str:
    """The module of what is registered; empty for what has none, as a number."""
    return str(getattr(target, '__module__', ''))
