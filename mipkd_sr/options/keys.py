"""The keys of an option file, as forms by which it is checked and documented.

The keys are those of ``mipkd_sr.option_types``. What a class takes (a network, a loss, an optimizer, a metric) is read
from the class's own signature, see ``mipkd_sr.options.checking``.
"""

import types
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typing_extensions import NotRequired, get_type_hints, is_typeddict

from mipkd_sr.archs import network_class
from mipkd_sr.option_types import (
    COMPLETED,
    GREATEST_STEPS,
    DatasetOptions,
    IoBackendOptions,
    PathOptions,
    TestingOptions,
    TestingPathOptions,
    TrainingOptions,
    TrainOptions,
)
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section
from mipkd_sr.options.registries import (
    ARCH_REGISTRY,
    DEGRADATION_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    finder,
    names_of,
    optimizers,
    schedulers,
)
from mipkd_sr.options.values import KINDS

GREATEST_COUNT = 2**16
"""Greatest number of layers, channels, positions or anything else in a network or a loss."""

NETWORK = Component('network', network_class, names_of(ARCH_REGISTRY), greatest=GREATEST_COUNT)
LOSS = Component(
    'loss',
    finder(LOSS_REGISTRY),
    names_of(LOSS_REGISTRY),
    extra={
        'schedule': Key('any', 'How its weight goes with the training: shape, from, to, begin, end.'),
        'gate': Key(
            'int',
            'Side, in HR pixels, of patches where the teacher must be better to be heard; 0 for none.',
            0,
            minimum=0,
        ),
        'balance': Key(
            'float',
            'Norm of its gradient on the student, as a multiple of that of the terms without balance; ~: not balanced.',
            minimum=0,
            maximum=1000,
        ),
        'sharpen': Key(
            'bool', "Whether a loss of BasicSR's compares with the HR image sharpened, as Real-ESRGAN.", False
        ),
        'teacher': Key('any', 'Which of several teachers it learns from: a name, or weights by name; all alike if ~.'),
    },
    arguments={
        'intervals': Key(
            'list', "Steps between the history's moves, in each part of the training.", items='int', minimum=1
        ),
        'interval_length': Key('int', 'Steps of each part but the last.', 100_000, minimum=1, maximum=GREATEST_STEPS),
    },
    greatest=GREATEST_COUNT,
    optional=True,
)
OPTIMIZER = Component('optimizer', lambda name: optimizers()[name], optimizers, skip=('params',))
SCHEDULER = Component(
    'scheduler',
    lambda name: schedulers()[name],
    schedulers,
    skip=('optimizer', 'last_epoch'),
    arguments={
        'milestones': Key('list', 'Steps at which the learning rate is multiplied by gamma.', REQUIRED, items='int'),
        'gamma': Key('float', 'Factor of the learning rate.', 0.1, minimum=0),
        'periods': Key('list', 'Steps of each cosine period.', REQUIRED, items='int', minimum=1),
        'restarts': Key('list', 'Steps at which the schedule starts again.', (0,), items='int', minimum=0),
        'restart_weights': Key('list', 'Factor of the learning rate after each restart.', (1,), items='float'),
        'eta_min': Key('float', 'Least learning rate.', 0.0, minimum=0),
    },
)
"""BasicSR's classes do not say what type their arguments have."""

METRIC = Component(
    'metric',
    finder(METRIC_REGISTRY),
    names_of(METRIC_REGISTRY),
    skip=('img', 'img2', 'kwargs'),
    arguments={
        'crop_border': Key('int', 'Pixels at each edge that are left out.', REQUIRED, minimum=0, maximum=2**16),
        'input_order': Key('str', "BasicSR's; the order of an image's dimensions.", 'HWC', ('HWC',)),
        'test_y_channel': Key('bool', 'Whether the Y channel alone is compared.', False),
    },
    extra={'better': Key('str', 'Which values are better.', 'higher', ('higher', 'lower'))},
)

DEGRADATION = Component('degradation', finder(DEGRADATION_REGISTRY), names_of(DEGRADATION_REGISTRY))

COMPONENTS = {form.what: form for form in (NETWORK, LOSS, METRIC, OPTIMIZER, SCHEDULER, DEGRADATION)}
"""By the names that ``option_types`` has for them."""
PATTERNS: Mapping[Any, Mapping[str, Any]] = {
    TrainOptions: {'_opt': LOSS},
    IoBackendOptions: {'': Key('any', "The backend's own options.")},
}
"""Keys of a section that are known by their ending."""


@cache
def section(declared: Any) -> Section:
    """The form of a section that ``option_types`` declares."""
    hints = get_type_hints(declared, include_extras=True)
    keys = {name: _entry(hint) for name, hint in hints.items() if name not in added(declared)}
    return Section(keys, PATTERNS.get(declared))


@cache
def added(*declared: Any) -> tuple[str, ...]:
    """The keys of these sections that no option file has: the program adds them to a run's options."""
    hints = {name: hint for one in declared for name, hint in get_type_hints(one, include_extras=True).items()}
    return tuple(name for name, hint in hints.items() if COMPLETED in _taken_apart(hint)[1])


def _taken_apart(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """An annotation's type, its metadata, and whether the key may be absent."""
    optional = get_origin(hint) is NotRequired
    inner = get_args(hint)[0] if optional else hint
    base, *said = get_args(inner) if get_origin(inner) is Annotated else (inner,)
    return base, tuple(said), optional


def _entry(hint: Any) -> Any:
    """The form of what is annotated so."""
    base, said, optional = _taken_apart(hint)
    alternatives = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
    parts = [part for part in alternatives if part is not type(None)]
    maps = [part for part in parts if get_origin(part) is dict]
    if said and isinstance(said[0], Key):
        form = _key(next(part for part in parts if part not in maps), said[0])
        return OneOrNamed(form) if maps else form
    if said and said[0] in COMPONENTS:
        return replace(COMPONENTS[said[0]], optional=True) if optional else COMPONENTS[said[0]]
    if is_typeddict(base):
        return replace(section(base), optional=True) if optional else section(base)
    if len(parts) > 1:
        return OneOrNamed(_entry(NotRequired[parts[0]] if optional else parts[0]))
    return MapOf(_entry(get_args(base)[1]), said[0] if said else (), optional)


def _key(kind: Any, key: Key) -> Key:
    """A key with the kind, and the choices, that its annotation tells."""
    if key.kind:
        return key
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return replace(key, kind='str' if {*map(type, choices)} == {str} else 'any', choices=choices)
    if get_origin(kind) is list:
        return replace(key, kind='list', items=KINDS[get_args(kind)[0]])
    return replace(key, kind=KINDS.get(kind, 'any'))


DATASET = section(DatasetOptions)
"""A data set; checked by ``_check_dataset``, as a user's class may have keys of its own."""
TRAIN = section(TrainingOptions)
TEST = section(TestingOptions)

ADDED = {
    'run': added(TrainingOptions, TestingOptions),
    'path': added(PathOptions, TestingPathOptions),
    'dataset': added(DatasetOptions),
}
"""Keys that the program adds, as BasicSR's ``parse_options`` does; an option file must not have them."""

RENAMED = {
    'use_flip': 'use_hflip',
    'pretrain_model_g': 'pretrain_network_g',
    'strict_load': 'strict_load_g',
}
"""Names that some of BasicSR's own option files still have, and what BasicSR calls them today."""
