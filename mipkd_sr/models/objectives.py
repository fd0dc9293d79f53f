"""From the options of a training run to its objectives, attached to networks that are what they ask for."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from basicsr.losses import build_loss
from torch import nn

from mipkd_sr.archs import check_output, check_staged
from mipkd_sr.data import lq_patch_size
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.runtime.errors import OptionError, blamed_on, sentence

LOSS_NAMES = {'pixel_opt': 'l_pix'}
"""BasicSR's log names that do not follow from the option's key; ``x_opt`` is otherwise logged as ``l_x``."""


def build_objectives(opt: Mapping[str, Any], student: nn.Module, teacher: nn.Module | None) -> dict[str, Objective]:
    """Build and attach every objective that ``train`` names, on the student's device.

    Args:
        opt: The run's options.
        student: The student.
        teacher: The teacher, or None.

    Returns:
        The objectives by their option's key without ``_opt``.

    Raises:
        OptionError: If there is none, one is not defined for these networks, or a network is not what they ask for.
    """
    objectives = {
        key.removesuffix('_opt'): _build_objective(opt, key, student, teacher)
        for key, loss_opt in opt['train'].items()
        if key.endswith('_opt') and loss_opt
    }
    if not objectives:
        raise OptionError('train', 'names no loss; add pixel_opt.')
    _check_networks(opt, objectives.values(), student, teacher)
    device = next(student.parameters()).device
    return {key: objective.to(device) for key, objective in objectives.items()}


def _build_objective(opt: Mapping[str, Any], key: str, student: nn.Module, teacher: nn.Module | None) -> Objective:
    with blamed_on(f'train:{key}'):
        loss = build_loss(opt['train'][key])
        if not isinstance(loss, Objective):
            loss(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))  # one that takes something else fails here
            return ImageObjective(LOSS_NAMES.get(key, f'l_{key.removesuffix("_opt")}'), loss)
        if loss.needs_teacher and teacher is None:
            raise ValueError(f'{type(loss).__name__} needs a teacher; add network_t and path:pretrain_network_t')
        loss.attach(student, teacher, lq_patch_size(opt), opt['scale'])
    return loss


def _check_networks(
    opt: Mapping[str, Any], objectives: Collection[Objective], student: nn.Module, teacher: nn.Module | None
) -> None:
    """Check that both networks do what the objectives ask of them: as a whole, or stage by stage."""
    in_stages = {
        'network_g': any(objective.student_indices() for objective in objectives),
        'network_t': any(objective.teacher_indices() for objective in objectives),
    }
    for key, net in {'network_g': student, 'network_t': teacher}.items():
        check = check_staged if in_stages[key] else check_output
        try:
            if net is not None:
                check(net, opt['scale'], lq_patch_size(opt))
        except ValueError as error:
            raise OptionError(key, sentence(error)) from error
