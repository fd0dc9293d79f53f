"""What a training state holds besides the student: from it a run goes on as if it had never stopped."""

from collections.abc import Mapping
from typing import Any

from basicsr.models.sr_model import SRModel
from torch import nn

from mipkd_sr.models.learning_rate import replay_schedule
from mipkd_sr.runs.options_of_state import SCHEDULE, changes, incomparable, options_of_state
from mipkd_sr.runs.validation_record import VALIDATIONS, ValidationRecord
from mipkd_sr.runtime.files import fits

PLAIN = (bool, int, float, list, tuple)
"""What changes in a scheduler is of these types; what else it holds, it is built with anew."""


def what_trains(model: SRModel) -> dict[str, Any]:
    """Everything that training changes in a DistillModel, besides the student: tensors and plain values by name."""
    return {
        'objectives': nn.ModuleDict(model.objectives).state_dict(),
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [
            {name: value for name, value in scheduler.state_dict().items() if isinstance(value, PLAIN)}
            for scheduler in model.schedulers
        ],
        'scaler': model.scaler.state_dict(),
        'best_metric_results': model.record.best,
        'validations': model.record.entries,
        'options': options_of_state(model.opt),
        'extra': model.extra_state(),
    }


def restore(model: SRModel, state: Mapping[str, Any]) -> None:
    """Put a DistillModel, as it was built, where it was when a training state was saved.

    Options that differ from the state's are meant: the optimizer takes its new numbers, and the learning rate is what
    the new schedule would have come to.

    Raises:
        ValueError: If it is the state of a run with other networks or objectives, or with another kind of optimizer.
    """
    new = {change.key: change for change in changes(state, model.opt)}
    if kind := new.get('train:optim_g:type'):
        raise ValueError(
            f'the training state is of the optimizer {kind.before}, which train:optim_g:type, {kind.now}, cannot go on '
            "with; keep it, or start a run of another name from the student's file with path:pretrain_network_g"
        )
    fresh = [[dict(group) for group in optimizer.param_groups] for optimizer in model.optimizers]
    schedule_is_new = any(key.startswith(SCHEDULE) for key in new)
    if schedule_is_new:
        replay_schedule(model, state['iter'])
        scheduled = [[_scheduled(group, one.defaults) for group in one.param_groups] for one in model.optimizers]
    try:
        model.net_g.load_state_dict(state['networks']['params'])
        if model.ema_decay > 0:
            model.net_g_ema.load_state_dict(state['networks']['params_ema'])
        nn.ModuleDict(model.objectives).load_state_dict(state['objectives'])
        kept = [{}] * len(model.schedulers) if schedule_is_new else state['schedulers']
        schedulers = [one.state_dict() | saved for one, saved in zip(model.schedulers, kept, strict=True)]
        SRModel.resume_training(model, {**state, 'schedulers': schedulers})
        model.scaler.load_state_dict(state['scaler'])
        model.load_extra_state(state['extra'])
    except (KeyError, RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'the training state is of a run with other options ({reason})') from None
    names = {key.removeprefix('train:optim_g:').split(':')[0] for key in new if key.startswith('train:optim_g:')}
    for number, optimizer in enumerate(model.optimizers):
        for index, group in enumerate(optimizer.param_groups):
            group.update({name: fresh[number][index][name] for name in names - {'lr'} if name in group})
            if schedule_is_new:
                group.update(scheduled[number][index])
    entries: Any = state.get('validations')
    if not fits(entries, VALIDATIONS) or not isinstance(best := state.get('best_metric_results'), dict):
        raise ValueError('the training state has no history of validations as a run keeps it')
    model.record = ValidationRecord(entries, best)
    model.record.forget(*incomparable(state['options'], new.values()))


def _scheduled(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an optimizer's group that a schedule may change or has added."""
    changed = {'lr', 'momentum', 'betas', *(group.keys() - defaults.keys())} - {'params'}
    return {name: group[name] for name in changed if name in group}
