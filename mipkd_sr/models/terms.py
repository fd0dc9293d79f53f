"""Building the terms of the loss: objectives, and what an option file may say of any of them."""

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.losses import build_loss
from torch import nn

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.teacher import TeacherMixture
from mipkd_sr.distill.weight_schedule import read_schedule

LOSS_NAMES = {'pixel_opt': 'l_pix'}
"""Log names of BasicSR's that differ from the rule that ``x_opt`` is logged as ``l_x``."""

TERM_OPTIONS = ('schedule', 'gate', 'teacher', 'balance', 'sharpen')
"""Options that any objective may have, besides the arguments of its class; see ``Objective``."""


def build_term(
    key: str, opt: Mapping[str, Any], teachers: Mapping[str, nn.Module]
) -> tuple[Objective, nn.Module | None]:
    """Build the objective of an option ``*_opt``; a loss of BasicSR's becomes an ``ImageObjective``.

    Returns:
        The objective, not yet attached, and the teacher that it learns from: one, several as one, or None.

    Raises:
        ValueError: If an option is wrong, or a teacher is needed and there is none.
    """
    of_term = {name: opt[name] for name in TERM_OPTIONS if opt.get(name) is not None}
    loss = build_loss({name: value for name, value in opt.items() if name not in TERM_OPTIONS})
    name = LOSS_NAMES.get(key, f'l_{key.removesuffix("_opt")}')
    method = type(loss).__name__
    for option, value in opt.items():
        if option.endswith('weight') and isinstance(value, int | float) and value < 0:
            raise ValueError(f'{option} must not be negative, not {value}')
    if not isinstance(loss, Objective):
        found = loss(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))  # one that takes something else fails here
        if not isinstance(found, torch.Tensor | tuple):
            raise ValueError(f'{method} returns a {type(found).__name__}; let it return one tensor, or be an Objective')
        objective: Objective = ImageObjective(name, loss, bool(of_term.get('sharpen')))
    elif of_term.get('sharpen'):
        raise ValueError(f'sharpen is for losses of BasicSR between the output and the HR image, not {method}')
    else:
        objective = loss
    if objective.needs_teacher and not teachers:
        raise ValueError(f'{method} needs a teacher; add network_t and path:pretrain_network_t')
    if 'schedule' in of_term:
        objective.schedule = read_schedule(of_term['schedule'])
    if ratio := of_term.get('balance', 0):
        objective.balance_by(float(ratio))
    if gate := of_term.get('gate', 0):
        if not objective.compares_outputs:
            raise ValueError(
                f"gate is for objectives that compare the student's output with the teacher's: not {method}"
            )
        objective.gate = gate
    if 'teacher' in of_term:
        objective.listens_to = read_teachers(of_term['teacher'], list(teachers))
    return objective, _heard(objective, teachers)


def read_teachers(wanted: Any, names: list[str]) -> dict[str, float]:
    """The weights, of sum 1, that an option ``teacher`` gives: a name, a list of names, or weights by name."""
    weights = dict.fromkeys([wanted] if isinstance(wanted, str) else wanted, 1.0)
    if isinstance(wanted, Mapping):
        weights = dict(wanted)
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(f"there is no teacher '{name}'; network_t has: {', '.join(names) or 'none'}")
        if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
            raise ValueError(f'the weight of teacher {name} must be a positive number, not {weight!r}')
    if not weights:
        raise ValueError('teacher names none; name one or several, or leave it out')
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _heard(objective: Objective, teachers: Mapping[str, nn.Module]) -> nn.Module | None:
    weights = objective.listens_to or {name: 1 / len(teachers) for name in teachers}
    if len(weights) > 1:
        if isinstance(objective, FeatureObjective):
            raise ValueError(
                f"{type(objective).__name__} learns from one teacher's features, not from those of several; "
                f'name one, such as teacher: {next(iter(weights))}'
            )
        return TeacherMixture(teachers, weights)
    return teachers[next(iter(weights))] if weights else None
