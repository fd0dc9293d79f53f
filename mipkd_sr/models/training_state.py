"""What a training state holds besides the student: from it a run goes on as if it had never stopped."""

from collections.abc import Mapping
from typing import Any

from basicsr.models.sr_model import SRModel
from torch import nn

from mipkd_sr.models.validation_record import ValidationRecord

PLAIN = (bool, int, float, list, tuple)
"""What changes in a scheduler is of these types; what it was built with is in the options."""


def what_trains(model: SRModel) -> dict[str, Any]:
    """Everything that training changes, besides the student: tensors and plain values by name.

    Args:
        model: A DistillModel.
    """
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
    }


def restore(model: SRModel, state: Mapping[str, Any]) -> None:
    """Put a model where it was when a training state was saved.

    Args:
        model: A DistillModel with the same options.
        state: The training state.

    Raises:
        ValueError: If it is the state of a run with other networks, objectives or optimizers.
    """
    try:
        model.net_g.load_state_dict(state['networks']['params'])
        if model.ema_decay > 0:
            model.net_g_ema.load_state_dict(state['networks']['params_ema'])
        nn.ModuleDict(model.objectives).load_state_dict(state['objectives'])
        SRModel.resume_training(model, state)
        model.scaler.load_state_dict(state['scaler'])
    except (KeyError, RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'the training state is of a run with other options ({reason})') from None
    model.record = ValidationRecord(state['validations'], state['best_metric_results'])
