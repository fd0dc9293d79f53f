"""TensorBoard's file of a run; a run goes on if it cannot be written."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils import get_root_logger
from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes scalars for TensorBoard. When that fails, it says so once and writes no more.

    What an interrupted session logged from ``first_iter`` on is not shown.
    """

    def __init__(self, folder: Path, first_iter: int) -> None:
        self._writer: SummaryWriter | None = None
        self._folder = folder
        self._usual_hook = threading.excepthook
        threading.excepthook = self._leave_to_us

        try:
            self._writer = SummaryWriter(str(folder), purge_step=first_iter)
        except Exception as error:  # what a file system raises
            self._give_up(error)

    def _leave_to_us(self, failure: threading.ExceptHookArgs) -> None:
        """Print no traceback for TensorBoard's own thread: its error is raised at the next write, too."""
        if not type(failure.thread).__module__.startswith('tensorboard.'):
            self._usual_hook(failure)

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        """Add a value to the curve ``name``."""
        self._write('add_scalar', name, value, iteration)

    def add_image(self, name: str, image: np.ndarray, iteration: int) -> None:
        """Show an image, 3 x H x W, RGB, 8 bits."""
        self._write('add_image', name, image, iteration)

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        self._write('close')
        threading.excepthook = self._usual_hook

    def _write(self, method: str, *what: Any) -> None:
        try:
            if self._writer is not None:
                getattr(self._writer, method)(*what)
        except Exception as error:  # what a file system, or TensorBoard's own thread, raises
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._writer = None
        get_root_logger().warning(f'TensorBoard is off from here on: {self._folder} cannot be written ({error}).')
