"""The options that a training state was trained with, and how they differ from those that a run goes on with."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from mipkd_sr.options.defaults import spell_out

SECTIONS = ('scale', 'manual_seed', 'world_size', 'train')
"""Sections that decide what a step computes, besides the networks, the training set and the teacher's file."""
SCHEDULE = ('train:optim_g:lr', 'train:scheduler:', 'train:warmup_iter')
"""Options that the learning rate depends on."""
OF_IMAGES = ('name', 'dataroot_gt', 'dataroot_lq')
"""Options that say which images a validation set has."""


class Change(NamedTuple):
    """An option that differs: its key, its value in the training state, and its value now."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f'{self.key} is {self.now} from here on; the training state was trained with {self.before}'


def options_of_state(opt: Mapping[str, Any]) -> dict[str, Any]:
    """What a training state keeps of a run's options: plain values, by their full keys."""
    names = [name for name in opt if name in SECTIONS or name.startswith('network_')]
    spelt_out = spell_out(deepcopy({name: opt[name] for name in names}))
    spelt_out['datasets'] = {
        phase: dataset if phase == 'train' else {name: dataset[name] for name in OF_IMAGES if name in dataset}
        for phase, dataset in opt['datasets'].items()
    }
    spelt_out['val'] = {'metrics': (opt.get('val') or {}).get('metrics') or {}}
    spelt_out['path'] = {name: value for name, value in opt['path'].items() if name.startswith('pretrain_network_')}
    return dict(_flat(spelt_out, ''))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f'{key}:{name}' if key else str(name))
    elif isinstance(value, list | tuple):
        yield key, list(value)
    else:
        yield key, value


def changes(state: Mapping[str, Any], opt: Mapping[str, Any]) -> list[Change]:
    """What differs between the options of a training state and those of the run that goes on from it.

    Raises:
        ValueError: If the state is none of a DistillModel's.
    """
    if 'options' not in state:
        raise ValueError(
            "the training state is not one of mipkd_sr's; start a run from the student's file with "
            'path:pretrain_network_g instead'
        )
    before, now = state['options'], options_of_state(opt)
    keys = [*now, *(key for key in before if key not in now)]
    return [Change(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def incomparable(before: Mapping[str, Any], new: Iterable[Change]) -> tuple[set[str], set[str]]:
    """The names of validation sets and of metrics whose values the changes ``new`` to ``before`` make incomparable."""
    sets, metrics = set(), set()
    for change in new:
        section, name, *rest = change.key.split(':')
        if section == 'datasets' and name != 'train':
            sets.add(str(before.get(f'datasets:{name}:name')))
        elif section == 'val':
            metrics.add(rest[0])
    return sets, metrics
