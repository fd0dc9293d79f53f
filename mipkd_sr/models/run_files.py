"""The files that a training run keeps: the student's, and the training states from which it resumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mipkd_sr.runtime.checkpoint import numbered_states, save_atomically, write_json

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
        states = numbered_states(self.path['training_states'])
        for state in states[self.keep_last or len(states) :]:
            Path(self.path['models'], f'net_g_{state.stem}.pth').unlink(missing_ok=True)
            state.unlink()
