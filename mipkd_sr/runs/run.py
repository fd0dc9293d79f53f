"""One training run's folder: where each of its files is, what they say, and how they are written."""

import filecmp
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from mipkd_sr.options.reading import Options, read_options
from mipkd_sr.runs.validation_record import VALIDATIONS, ValidationRecord
from mipkd_sr.runtime.checkpoint import is_whole, load_file, save_atomically
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import atomic_write, fits, read_json, write_json

SESSIONS = [{'after': int, 'digest': str, 'inputs': {str: str}, 'code': str}]
NOT_TIMED = {'iter': 0, 'seconds_per_step': None}
"""What its files hold; see ``mipkd_sr.runtime.files.fits``."""
Networks = dict[str, dict[str, Tensor]]
"""A student's file: ``params``, and ``params_ema`` where there is a moving average."""


class Run:
    """A training run, by its folder, which need not be there yet.

    Args:
        folder: ``ROOT/experiments/NAME``.

    Attributes:
        root: The folder that holds ``experiments``.
        models: Folder of the student's files.
        states: Folder of the training states.
        visualization: Folder of the images of validations.
        tensorboard: Folder of TensorBoard's curves, outside of the run's own as BasicSR has it.
        validations_file: The history of its validations.
        timing_file: Steps taken, and seconds a step; a few seconds old while it runs.
        gradients_file: Each loss's gradient on the student, a line of JSON a measurement, where ``logger:gradients``
            asks for it.
        history_file: What it was trained with; see ``mipkd_sr.runs.identity``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self.root = folder, folder.name, folder.parent.parent
        self.models, self.states = folder / 'models', folder / 'training_states'
        self.visualization = folder / 'visualization'
        self.tensorboard = self.root / 'tb_logger' / self.name
        self.validations_file, self.timing_file = folder / 'validations.json', folder / 'timing.json'
        self.gradients_file, self.history_file = folder / 'gradients.jsonl', folder / 'history.json'

    @classmethod
    def named(cls, root: Path, name: str) -> 'Run':
        """The run ``name`` of a root, the folder that experiments, results and relative paths belong to."""
        return cls(root / 'experiments' / name)

    @classmethod
    def of(cls, opt: Mapping[str, Any]) -> 'Run':
        """The run that trains with the completed options ``opt``, BasicSR's ``parse_options``' included."""
        return cls(Path(opt['path']['experiments_root']))

    def paths(self) -> dict[str, str]:
        """Its folders as BasicSR's models look for them in ``opt['path']``."""
        folders = {'experiments_root': self.folder, 'models': self.models, 'training_states': self.states}
        folders |= {'log': self.folder, 'visualization': self.visualization}
        return {key: str(folder) for key, folder in folders.items()}

    def student(self, label: str | int = 'latest') -> Path:
        """The student's file of an iteration, or of ``latest`` or ``best``."""
        return self.models / f'net_g_{label}.pth'

    def last_student(self) -> Path:
        """The student's file of the last step, or else of the last one that was saved."""
        if self.student().is_file():
            return self.student()
        labels = [file.stem.removeprefix('net_g_') for file in self.models.glob('net_g_*.pth')]
        if not (saved := [int(label) for label in labels if label.isdigit()]):
            raise OptionError('--run', f'{self.models} holds no student yet; wait for its first net_g_*.pth.')
        return self.student(max(saved))

    def state(self, iteration: int) -> Path:
        """The training state of an iteration."""
        return self.states / f'{iteration}.state'

    def kept_options(self) -> Options:
        """The options that it was last started with."""
        if newest := max(self.folder.glob('*.yml'), key=lambda file: file.stat().st_mtime, default=None):
            return read_options(newest)
        raise OptionError('', f'{self.folder} keeps no option file; give the one that it was trained with.')

    def validations(self) -> list[dict[str, Any]]:
        """Its validations so far; see ``ValidationRecord.entries``."""
        entries = read_json(self.validations_file, [])
        return entries if fits(entries, VALIDATIONS) else []

    def seconds_per_step(self) -> float | None:
        """What a step took in its last session; None if that is not known."""
        return self._timing()['seconds_per_step']

    def steps_taken(self) -> int:
        """Steps that its last session has taken; a few seconds old while it runs."""
        return self._timing()['iter']

    def _timing(self) -> dict[str, Any]:
        timing = {'iter': 0, **read} if isinstance(read := read_json(self.timing_file, {}), dict) else {}
        return timing if fits(timing, {'iter': int, 'seconds_per_step': (float, None)}) else dict(NOT_TIMED)

    def sessions(self) -> list[Any]:
        """What it was trained with over all its steps, as ``mipkd_sr.runs.identity`` reads it."""
        entries = read_json(self.history_file, [])
        return entries if fits(entries, SESSIONS) else []

    def numbered_states(self) -> list[Path]:
        """Its training states, the newest first."""
        states = [file for file in self.states.glob('*.state') if file.stem.isdigit()]
        return sorted(states, key=lambda file: int(file.stem), reverse=True)

    def is_finished(self, total_iter: int) -> bool:
        """Whether it has taken ``total_iter`` steps, and its student's file is of the last one.

        If a run was extended and then killed between its last training state and ``net_g_latest.pth``, that file is
        still the shorter run's.
        """
        validations = self.validations()
        if not self.student().is_file() or not validations or validations[-1]['iter'] < total_iter:
            return False
        last = self.student(validations[-1]['iter'])
        if not last.is_file() or filecmp.cmp(last, self.student(), shallow=False):
            return True
        try:  # another version of PyTorch may write the same in other bytes
            tensors = [tree_flatten(load_file(file))[0] for file in (last, self.student())]
            return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))
        except ValueError:
            return False

    def has_come_to_nothing(self) -> bool:
        """Whether it has not yet come to a training state, or to a student's file."""
        return not any(file for folder in (self.models, self.states) for file in folder.glob('[!.]*'))

    def save_student(self, networks: Networks, label: str | int) -> None:
        """Write the student's file of an iteration, or of ``latest`` or ``best``."""
        save_atomically(networks, self.student(label))

    def save_validations(self, validations: list[dict[str, Any]]) -> None:
        """Write the history of validations; see ``ValidationRecord.entries``."""
        write_json(validations, self.validations_file)

    def save_timing(self, iteration: int, seconds_per_step: float | None) -> None:
        """Write the steps taken, and the seconds a step."""
        with atomic_write(self.timing_file) as part:
            part.write_text(json.dumps({'iter': iteration, 'seconds_per_step': seconds_per_step}), encoding='utf-8')

    def save_sessions(self, sessions: Iterable[Mapping[str, Any]]) -> None:
        """Write what it was trained with; see ``sessions``."""
        write_json(list(sessions), self.history_file)

    def save_state(self, state: Mapping[str, Any], keep_last: int = 0) -> None:
        """Write the training state of ``state['iter']``, after the student's file, and remove those that are not kept.

        A run resumes from a training state alone, so a write that is cut short between the two costs nothing. Of the
        training states, and students' files of the same iterations, ``keep_last`` are kept, or all if 0; damaged ones
        are not counted.
        """
        save_atomically({**state, 'history': self.sessions()}, self.state(state['iter']))
        whole = 0
        for file in self.numbered_states() if keep_last else []:
            if whole < keep_last:
                whole += is_whole(file)
                continue
            self.student(file.stem).unlink(missing_ok=True)
            file.unlink()

    def abandon(self, iterations: Iterable[int], start: Mapping[str, Any], aside: Path) -> None:
        """Move what was trained beyond the training state ``start``, from which the run now goes on differently, to
        ``aside``.

        That is the states of ``iterations``, with the students' files of the same iterations. The history of
        validations, and the best student, become the state's own. If that student's file is gone, there is none until a
        better one comes.
        """
        away = [self.student(), self.validations_file, self.timing_file]
        for iteration in iterations:
            away += [self.state(iteration), self.student(iteration)]
        record = ValidationRecord(start['validations'], start['best_metric_results'])
        kept = {entry['iter'] for entry in record.entries}
        if any(entry['iter'] not in kept for entry in self.validations()):
            away.append(self.student('best'))
        for file in away:
            if file.exists():
                target = aside / file.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.rename(target)
        self.save_validations(record.entries)
        best = record.best_iteration()
        if best == start['iter']:
            self.save_student(start['networks'], 'best')
        elif best is not None and self.student(best).exists() and not self.student('best').exists():
            self.save_student(load_file(self.student(best)), 'best')


def find_run(name: str | Path, root: Path | None = None) -> Run:
    """The run that a user names: its folder, or its name under ``experiments`` of a root, by default the current
    folder.
    """
    candidates = [Run(Path(name).absolute()), Run.named(root or Path.cwd(), str(name))]
    for run in candidates:
        if run.models.is_dir() or run.validations_file.is_file():
            return run
    places = ' and '.join(dict.fromkeys(str(run.folder) for run in candidates))
    raise OptionError('--run', f'there is no run {name}: none is in {places}; give its name, or its folder.')
