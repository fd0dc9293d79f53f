"""How the weight of an objective, or of a term, changes over the training: one notation for all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHAPES = ('linear', 'cosine', 'window')


@dataclass(frozen=True)
class Schedule:
    """A factor on a weight, as a function of the part of the training that is done.

    With ``p`` in (0, 1] that part and ``u = clamp((p - begin) / (end - begin), 0, 1)``::

        linear: first + (last - first) u
        cosine: first + (last - first) (1 - cos(pi u)) / 2
        window: 1 where begin < p <= end, else 0

    In an option file (``from`` and ``to`` are ``first`` and ``last``)::

        kd_opt: {type: LogitsKDLoss, schedule: {shape: cosine, from: 1, to: 0, end: 0.5}}

    Attributes:
        shape: 'linear', 'cosine' or 'window'.
        first: The factor up to ``begin``.
        last: The factor from ``end`` on.
        begin: Where it begins, a part of the training in [0, 1].
        end: Where it ends, in [begin, 1]; where both are the same, it is a step.

    Raises:
        ValueError: If an argument is out of its range.
    """

    shape: str = 'linear'
    first: float = 1.0
    last: float = 1.0
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape '{self.shape}' is not one of {', '.join(SHAPES)}")
        if not 0 <= self.begin <= self.end <= 1:
            raise ValueError(f'begin and end must be in order within [0, 1], not {self.begin} and {self.end}')
        if self.first < 0 or self.last < 0:
            raise ValueError(f'from and to must not be negative, not {self.first} and {self.last}')

    @property
    def is_constant(self) -> bool:
        """Whether it leaves every weight as it is."""
        return self.shape != 'window' and self.first == self.last == 1

    def factor(self, progress: float) -> float:
        """The factor when the part ``progress`` of the training, in (0, 1], is done."""
        if self.shape == 'window':
            return float(self.begin < progress <= self.end)
        span = self.end - self.begin
        part = min(1.0, max(0.0, (progress - self.begin) / span)) if span else float(progress > self.begin)
        if self.shape == 'cosine':
            part = (1 - math.cos(math.pi * part)) / 2
        return self.first + (self.last - self.first) * part


ALWAYS = Schedule()
"""The weight as it is, all through the training."""

_KEYS = {'shape': str, 'from': float, 'to': float, 'begin': float, 'end': float}


def read_schedule(opt: Any) -> Schedule:
    """The schedule of an option file's mapping, with the keys ``shape``, ``from``, ``to``, ``begin`` and ``end``.

    ``from`` and ``to`` must be given for 'linear' and 'cosine' and have no meaning for 'window'.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(opt, Mapping):
        raise ValueError(f'schedule must be a mapping with the keys {", ".join(_KEYS)}, not {opt!r}')
    for name, value in opt.items():
        if name not in _KEYS:
            raise ValueError(f"schedule has no key '{name}'; its keys are {', '.join(_KEYS)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) if _KEYS[name] is str else is_number):
            raise ValueError(f'schedule:{name} must be {"text" if _KEYS[name] is str else "a number"}, not {value!r}')
    shape = opt.get('shape', 'linear')
    if shape == 'window':
        if superfluous := opt.keys() & {'from', 'to'}:
            raise ValueError(f'schedule:{sorted(superfluous)[0]} has no meaning for a window, whose factor is 1 inside')
        return Schedule(shape, begin=float(opt.get('begin', 0)), end=float(opt.get('end', 1)))
    if missing := {'from', 'to'} - opt.keys():
        raise ValueError(
            f'schedule:{sorted(missing)[0]} is missing; a {shape} schedule goes from one factor to another'
        )
    numbers = [float(opt.get(name, default)) for name, default in (('from', 1), ('to', 1), ('begin', 0), ('end', 1))]
    return Schedule(shape, *numbers)
