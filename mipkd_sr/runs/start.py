"""The folder of a training run, and where in it the run begins: anew, or from a training state."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_time_str

from mipkd_sr.options.defaults import spell_out
from mipkd_sr.options.reading import dump_options
from mipkd_sr.runs.folder_lock import TENSORBOARD_MARKS, TRAINING_MARKS, archive, check_ours, own_folder
from mipkd_sr.runs.identity import Session, history, session
from mipkd_sr.runs.run import Run
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError, blamed_on
from mipkd_sr.runtime.files import atomic_write, remove_parts
from mipkd_sr.runtime.ranks import failing_together


class Start(NamedTuple):
    """Where a run begins: a training state and its file."""

    file: Path
    state: dict[str, Any]


def find_start(opt: Mapping[str, Any], auto_resume: bool) -> Start | None:
    """The training state to resume from: the newest whole one with ``--auto_resume``, else that named. All ranks
    ask.
    """
    file: list[str | None] = [None]
    with failing_together():
        if opt['rank'] == 0:
            file = [_find_file(opt, auto_resume)]
    if opt['dist']:
        torch.distributed.broadcast_object_list(file)
    if file[0] is None:
        return None
    return Start(Path(file[0]), load_file(file[0]))


def resume(model: BaseModel, start: Start) -> None:
    """Go on from a training state."""
    with blamed_on('path:resume_state'):
        numbers = [start.state.get(name) for name in ('iter', 'samples')] if isinstance(start.state, dict) else [None]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            what = 'no training state; give another'
            if isinstance(start.state, dict) and 'schedulers' in start.state:
                what = "a state of BasicSR's own, without networks; start from its student with path:pretrain_network_g"
            raise ValueError(f'{start.file} holds {what}.')
        try:
            model.resume_training(start.state)
        except ValueError as error:
            raise ValueError(f'{start.file}: {error}') from None


def _find_file(opt: Mapping[str, Any], auto_resume: bool) -> str | None:
    run = Run.of(opt)
    states = run.numbered_states() if auto_resume else []
    for file in states:
        try:
            load_file(file)
            return str(file)
        except ValueError as error:
            print(f'warning: {error}; going back to the training state before it', file=sys.stderr, flush=True)
    if named := opt['path'].get('resume_state'):
        try:
            load_file(named)
            return str(named)
        except ValueError as error:
            raise OptionError('path:resume_state', f'{error}; give another.') from None
    if states:
        raise OptionError(
            '--auto_resume',
            f'none of the {len(states)} training states in {run.states} can be read; put one back, or begin anew '
            'without this flag, which sets them aside.',
        )
    return None


@contextmanager
def experiment_folder(
    opt: Mapping[str, Any], file_name: str, start: Start | None, auto_resume: bool, unchanged: bool = False
) -> Iterator[list[str]]:
    """Keep the experiment's folder for this process alone, with the resolved options in it as ``file_name``.

    Earlier contents are archived: all of them if the run begins anew; if it goes on, what came after its start. A run
    with ``--auto_resume`` that was stopped before its first state has nothing to archive. An ``unchanged`` one goes on
    only with what it was trained with so far. Yields sentences for the log: what has changed since the start was saved,
    and what was archived.
    """
    run = Run.of(opt)
    anew = start is None and not (auto_resume and run.has_come_to_nothing())
    if anew:
        check_ours(run.tensorboard, TENSORBOARD_MARKS)
    with own_folder(run.folder, TRAINING_MARKS, anew):
        past = [] if start is None else history(Run(start.file.parent.parent), start.state)
        now = session(opt, 0 if start is None else start.state['iter'])
        if unchanged and not all(one.is_like(now) for one in past):
            raise OptionError(
                '--unchanged', f'{run.folder} was trained with other options, weights, images or code; name another.'
            )
        notes = _what_has_changed(past, now)
        if anew:
            archive(run.tensorboard, TENSORBOARD_MARKS)
        for folder in (run.models, run.states, run.visualization):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (run.models, run.states, run.folder):
            remove_parts(folder)
        with atomic_write(run.folder / file_name) as part:
            part.write_text(dump_options(spell_out(deepcopy(dict(opt)))), encoding='utf-8')
        same = bool(past) and past[-1].is_like(now) and past[-1].code == now.code
        if not same and (start is None or start.state['iter'] < opt['train']['total_iter']):
            past.append(now)
        run.save_sessions(one._asdict() for one in past)
        yield notes if start is None else [*notes, *_abandon_what_came_after(run, start)]


def _what_has_changed(past: Sequence[Session], now: Session) -> list[str]:
    """A sentence for each input, besides the options, that has changed since the run's last session."""
    said = 'has changed since the training state was saved; what it is now is taken.'
    return [
        f'The code of {key.partition(":")[2]} {said}' if key.startswith('import:') else f'What {key} names {said}'
        for key in (past[-1].changed_inputs(now.inputs) if past else ())
    ]


def _abandon_what_came_after(run: Run, start: Start) -> list[str]:
    """Move away what a run from ``start`` on would mix up with its own; returns sentences about it."""
    of_this_run = start.file.resolve().parent == run.states.resolve()
    first = start.state['iter'] + 1 if of_this_run else 0
    later = [int(file.stem) for file in run.numbered_states() if int(file.stem) >= first]
    if not later:
        return []
    aside = run.folder / f'abandoned_{get_time_str()}'
    run.abandon(later, start.state, aside)
    numbers = ', '.join(f'{iteration:,}' for iteration in reversed(later))
    return [f'What was trained beyond this start, to the iterations {numbers}, is now in {aside}']
