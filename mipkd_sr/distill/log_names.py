"""The names under which the objectives' values are logged. Two objectives may use one name; both values are logged."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mipkd_sr.runtime.errors import RunError

Values = dict[str, Any]


class LogNames:
    """Joins the losses, and the further values, that several objectives return.

    A name stays as it is while one objective alone uses it. Once two do, it is written with the option's key: ``l_kd``
    of ``kd_opt`` and ``kd2_opt`` becomes ``l_kd/kd`` and ``l_kd2/kd``; ``path`` of ``mipkd_opt`` becomes
    ``mipkd/path``. It keeps that form in all further steps.
    """

    def __init__(self) -> None:
        self._shared: set[str] = set()

    def join(self, losses: Mapping[str, Values], logs: Mapping[str, Values]) -> tuple[Values, Values]:
        """All losses, and all further values, of a step's objectives, given by the key of their objective, by names
        that differ.
        """
        used = Counter(name for values in (*losses.values(), *logs.values()) for name in values)
        self._shared |= {name for name, count in used.items() if count > 1}
        joined: tuple[Values, Values] = {}, {}
        for into, of_keys, prefix in ((joined[0], losses, 'l_'), (joined[1], logs, '')):
            for key, values in of_keys.items():
                for name, value in values.items():
                    if name in self._shared:  # BasicSR takes what begins with l_ for a loss
                        name = f'{prefix}{key}/{name.removeprefix(prefix)}'
                    while name in joined[0] or name in joined[1]:  # an objective may return the very name made here
                        name += "'"
                    into[name] = value
        return joined


def check_losses(key: str, objective: object, losses: Any) -> None:
    """Check that ``losses``, which ``objective`` under ``train:<key>_opt`` returned, are scalars by name."""
    if isinstance(losses, Mapping):
        wrong = next((name for name, value in losses.items() if not _is_loss(name, value)), None)
        if wrong is None:
            return
        what = f'{_describe(losses[wrong])} under {wrong!r}'
    else:
        what = _describe(losses)
    raise RunError(
        f'train:{key}_opt: {type(objective).__name__} returned {what}; its forward must return a dict from names '
        'to losses, each a floating-point tensor with no dimension, such as value.mean().'
    )


def _is_loss(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix("torch.")}'
    return f'a {type(value).__name__}'
