"""From the options of a training run to its objectives, attached to networks that meet their needs."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from mipkd_sr.archs import check_staged
from mipkd_sr.archs.probing import first_convolution
from mipkd_sr.data import lq_patch_size
from mipkd_sr.data.stream import SeededDataset
from mipkd_sr.distill.objective import Objective
from mipkd_sr.models.teachers import ONLY
from mipkd_sr.models.terms import build_term
from mipkd_sr.option_types import Component, TrainingOptions
from mipkd_sr.runtime.errors import OptionError, RunError, blamed_on, sentence


def build_objectives(
    opt: TrainingOptions, student: nn.Module, teachers: Mapping[str, nn.Module], besides: Collection[str] = ()
) -> dict[str, Objective]:
    """Build and attach every objective that ``train`` names, on the student's device.

    ``besides`` are options that belong to a model class, such as ``train:gan_opt``, and are no objectives.

    Returns:
        The objectives by their option's key without ``_opt``.

    Raises:
        OptionError: If there is none, one is not defined for these networks, or a network is not what they ask for.
    """
    terms: Mapping[str, Any] = opt['train']  # the names of its terms are the user's
    objectives = {
        key.removesuffix('_opt'): _build_objective(opt, key, loss_opt, student, teachers)
        for key, loss_opt in terms.items()
        if key.endswith('_opt') and loss_opt and f'train:{key}' not in besides
    }
    if not objectives:
        raise OptionError('train', 'names no loss; add pixel_opt.')
    if all(objective.balance for objective in objectives.values()):
        raise OptionError('train', 'balances every term, and each by the others; leave balance out of one.')
    _check_batch(opt, objectives)
    _check_channels(opt, {'network_g': student, **teachers})
    _check_stages(opt, objectives.values(), student, teachers)
    device = next(student.parameters()).device
    return {key: objective.to(device) for key, objective in objectives.items()}


def second_step(opt: TrainingOptions, objectives: Collection[str]) -> set[str]:
    """The objectives that ``train:second_step`` names, by their option's key without ``_opt``."""
    wanted = {name.removesuffix('_opt') for name in opt['train']['second_step'] or ()}
    if wanted - set(objectives) or (wanted and not set(objectives) - wanted):
        known = ', '.join(f'{name}_opt' for name in objectives)
        raise OptionError('train:second_step', f'must name some, and not all, of the losses: {known}.')
    terms: Mapping[str, Any] = opt['train']
    if wanted and any((terms[f'{name}_opt'] or {}).get('balance') for name in objectives):
        raise OptionError('train:second_step', 'is not defined beside balance, which needs all terms in one step.')
    if wanted and opt['train']['precision'] == 'fp16':
        raise OptionError('train:second_step', 'is not defined for fp16, whose losses are scaled; take bf16 or fp32.')
    return wanted


def check_data(model: Any, dataset: Any) -> None:
    """See that each term of a DistillModel and its degradation have samples: a set may have LR images alone, or HR."""
    try:
        samples = [SeededDataset(one, 0)[0, 0] for one in getattr(dataset, 'datasets', [dataset])]
    except RunError:  # reading it for a step fails alike, with a trace in the log
        return
    degraded = [sample for sample in samples if isinstance(sample, dict) and 'lq' not in sample]
    for name in model.degradation.needs:
        if any(name not in sample for sample in degraded):
            raise OptionError('degradation', f"needs '{name}' of each sample, which RealESRGANDataset gives; take it.")
    if model.opt.get('degradation') and samples and not degraded:
        raise OptionError('degradation', 'is for HR images alone, but the training set has LR images; take it out.')
    if any(isinstance(sample, dict) and 'gt' in sample for sample in samples):
        return
    for key, objective in model.objectives.items():
        if objective.needs_gt or objective.gate:
            raise OptionError(f'train:{key}_opt', 'needs HR images, which no training set has; set it to ~.')
        if getattr(objective, 'zoom_in', False):
            raise OptionError(f'train:{key}_opt:zoom_in', 'needs HR images, which no training set has; make it false.')
    if model.opt['train'].get('gan_opt'):
        raise OptionError('train:gan_opt', 'needs HR images, which no training set has; add some.')


def _build_objective(
    opt: TrainingOptions, key: str, loss_opt: Component, student: nn.Module, teachers: Mapping[str, nn.Module]
) -> Objective:
    with blamed_on(f'train:{key}'):
        objective, teacher = build_term(key, loss_opt, teachers)
        objective.attach(student, teacher, lq_patch_size(opt), opt['scale'])
    return objective


def _check_batch(opt: TrainingOptions, objectives: Mapping[str, Objective]) -> None:
    """Check that a step, or each of its parts, has enough samples for losses that relate samples to each other."""
    batch = opt['datasets']['train']['batch_size_per_gpu'] * opt.get('world_size', 1)
    for key, objective in objectives.items():
        if batch < (least := objective.least_batch()):
            raise OptionError(
                f'train:{key}_opt',
                f'relates the samples of a batch to each other, {least} at least, but a batch has {batch}; '
                'raise datasets:train:batch_size_per_gpu.',
            )


def _check_channels(opt: TrainingOptions, networks: Mapping[str, nn.Module]) -> None:
    """Check that networks take one channel where a data set has ``color: y``."""
    for phase, dataset in opt['datasets'].items():
        for name, net in networks.items() if dataset.get('color') == 'y' else ():
            first = first_convolution(net)
            if first is not None and first.in_channels != 1:
                raise OptionError(
                    f'datasets:{phase}:color',
                    f'is y, images of one channel, but {name} takes {first.in_channels}; leave it out.',
                )


def _check_stages(
    opt: TrainingOptions,
    objectives: Collection[Objective],
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
) -> None:
    """Check the stages of the networks whose features an objective takes."""
    in_stages = {'network_g': student} if any(objective.student_indices() for objective in objectives) else {}
    for name, net in teachers.items():
        if any(o.teacher_indices() and (not o.listens_to or name in o.listens_to) for o in objectives):
            in_stages['network_t' if name == ONLY else f'network_t:{name}'] = net
    for key, net in in_stages.items():
        try:
            check_staged(net, opt['scale'], lq_patch_size(opt))
        except ValueError as error:
            raise OptionError(key, sentence(error)) from error
