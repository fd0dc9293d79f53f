"""The learning rate's schedule: building it, trying it before a training, and replaying it on resume.

The warm-up before it is ``ModelHooks.update_learning_rate``; the schedules' classes are ``registries.schedulers``.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from torch import nn

from mipkd_sr.options.registries import schedulers
from mipkd_sr.runtime.errors import blamed_on

WALKED = 10_000
"""A schedule is tried at this many first and last steps; those between are skipped."""

BEFORE_THE_OPTIMIZER = 'Detected call of `lr_scheduler.step'
"""torch's warning if the schedule steps before the optimizer."""


def schedules_of(optimizers: Sequence[torch.optim.Optimizer], train_opt: Mapping[str, Any]) -> list[Any]:
    """The learning rate schedule of the option file's section ``train``, for each optimizer."""
    arguments = dict(train_opt['scheduler'])
    build = partial(schedulers()[arguments.pop('type')], **arguments)
    with blamed_on('train:scheduler'):
        made = [build(optimizer) for optimizer in optimizers]
        try_schedule(build, train_opt['optim_g'].get('lr', 1e-3), train_opt['total_iter'])
    return made


def try_schedule(build: Callable[[torch.optim.Optimizer], Any], rate: float, total_iter: int) -> None:
    """Run a trial schedule through a whole training's steps, so that it cannot fail in the middle of one.

    ``build`` makes it for an optimizer, which starts with ``rate``. A ValueError says at which step it fails, or gives
    a rate that is negative or not finite.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate, momentum=0.9)
    schedule = build(optimizer)
    step = 1
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', BEFORE_THE_OPTIMIZER, UserWarning)
        while step < total_iter:
            step += 1
            if step == WALKED and total_iter > 2 * WALKED:
                step = total_iter - WALKED
                schedule.last_epoch = step - 2
            try:
                schedule.step()
                rates = [group['lr'] for group in optimizer.param_groups]
                if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
                    raise ValueError(f'the rate is {rates[0]}')
            except Exception as error:  # whatever a schedule raises
                raise ValueError(
                    f'fails at iteration {step:,} of {total_iter:,} ({type(error).__name__}: {error}); change its '
                    'arguments, or train:total_iter'
                ) from error


def replay_schedule(model: BaseModel, iteration: int) -> None:
    """Bring a new model's learning rate to where the schedule has it after ``iteration`` steps."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', BEFORE_THE_OPTIMIZER, UserWarning)
        for number in range(1, iteration + 1):
            model.update_learning_rate(number, model.opt['train']['warmup_iter'])
