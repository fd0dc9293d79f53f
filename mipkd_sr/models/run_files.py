"""The files that a training run keeps: the student's, and the training states from which it resumes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mipkd_sr.models.validation_record import ValidationRecord
from mipkd_sr.runtime.checkpoint import is_whole, load_file, numbered_states, save_atomically, write_json

Networks = dict[str, dict[str, Tensor]]
"""A student's file: ``params``, and ``params_ema`` where there is a moving average."""


class RunFiles:
    """Writes a run's files, and removes old ones.

    Args:
        path: Folders: ``experiments_root``, ``models`` and ``training_states``.
        keep_last: How many training states, and students' files of the same iterations, to keep; 0 for all.
    """

    def __init__(self, path: Mapping[str, Any], keep_last: int = 0) -> None:
        self.path = path
        self.keep_last = keep_last

    def save_student(self, networks: Networks, label: str | int) -> None:
        """Write ``models/net_g_<label>.pth``.

        Raises:
            OSError: If it cannot be written; what was there before is still there.
        """
        save_atomically(networks, Path(self.path['models'], f'net_g_{label}.pth'))

    def save_validations(self, validations: list[dict[str, Any]]) -> None:
        """Write the history of validations; see ``ValidationRecord.entries``.

        Raises:
            OSError: If it cannot be written; what was there before is still there.
        """
        write_json(validations, Path(self.path['experiments_root'], 'validations.json'))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the training state ``<iter>.state``, after the student's file, and remove those that are not kept.

        A run resumes from a training state alone, so a write that is cut short between the two costs nothing.

        Raises:
            OSError: If it cannot be written; what was there before is still there.
        """
        save_atomically(state, Path(self.path['training_states'], f'{state["iter"]}.state'))
        self._remove_old()

    def _remove_old(self) -> None:
        """Keep the newest states, damaged ones not counted, and remove those before them."""
        whole = 0
        for state in numbered_states(self.path['training_states']) if self.keep_last else []:
            if whole < self.keep_last:
                whole += is_whole(state)
                continue
            Path(self.path['models'], f'net_g_{state.stem}.pth').unlink(missing_ok=True)
            state.unlink()

    def abandon(self, iterations: Iterable[int], start: Mapping[str, Any], folder: Path) -> None:
        """Put out of the way what was trained beyond a state from which the run goes on otherwise.

        Args:
            iterations: Those of the states to put away, with the students' files of the same iterations.
            start: The training state to go on from. The history of validations, and the best student, are put back to
                its own; where that student is not at hand, there is none until a better one comes.
            folder: Where to put it all, under the names that it has.

        Raises:
            OSError: If something cannot be moved.
        """
        models, states = Path(self.path['models']), Path(self.path['training_states'])
        root = Path(self.path['experiments_root'])
        away = [states / f'{iteration}.state' for iteration in iterations]
        away += [models / f'net_g_{label}.pth' for label in (*iterations, 'latest')]
        away += [root / 'validations.json', root / 'timing.json']
        record = ValidationRecord(start['validations'], start['best_metric_results'])
        kept = {entry['iter'] for entry in record.entries}
        if any(entry['iter'] not in kept for entry in self._validations()):
            away.append(models / 'net_g_best.pth')
        for file in away:
            if file.exists():
                (folder / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                file.rename(folder / file.relative_to(root))
        self.save_validations(record.entries)
        best = record.best_iteration()
        if best == start['iter']:
            self.save_student(start['networks'], 'best')
        elif best is not None and (models / f'net_g_{best}.pth').exists() and not (models / 'net_g_best.pth').exists():
            self.save_student(load_file(models / f'net_g_{best}.pth'), 'best')

    def _validations(self) -> list[dict[str, Any]]:
        """The history of validations that was written last."""
        try:
            return json.loads(Path(self.path['experiments_root'], 'validations.json').read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return []
