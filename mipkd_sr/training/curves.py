"""Curves and images of a run: TensorBoard's file, and Weights & Biases.

W&B is an optional dependency, mipkd_sr[wandb], as in BasicSR: ``logger:wandb:project`` turns it on, ``resume_id``
continues a run. Without a network, ``WANDB_MODE=offline`` keeps everything in a folder that ``wandb sync`` uploads
later.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils import get_root_logger
from torch.utils.tensorboard import SummaryWriter

from mipkd_sr.runtime.errors import RunError, sentence


class TensorBoard:
    """Writes scalars for TensorBoard. When that fails, it says so once and writes no more, and the run goes on.

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


class WandbLog:
    """A run at Weights & Biases; its files are in ``wandb/`` under the run's root.

    Raises:
        RunError: If it cannot be started.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        import wandb

        self._image = wandb.Image
        own = opt['logger']['wandb']
        try:
            self._run = wandb.init(
                project=own['project'],
                id=own['resume_id'],
                resume='allow',
                name=opt['name'],
                config=dict(opt),
                dir=opt['root_path'],
            )
        except Exception as error:  # no key, no network, no such project
            raise RunError(
                f'logger:wandb: cannot be started ({sentence(error).rstrip(".")}); run `wandb login`, or set '
                'WANDB_MODE=offline.'
            ) from None
        get_root_logger().info(f'W&B: logger:wandb:resume_id={self._run.id} goes on with this run')

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        """Add a value to the curve ``name``."""
        self._run.log({name: value}, step=iteration)

    def add_image(self, name: str, image: np.ndarray, iteration: int) -> None:
        """Show an image, 3 x H x W, RGB, 8 bits."""
        self._run.log({name: self._image(image.transpose(1, 2, 0))}, step=iteration)

    def close(self) -> None:
        """Send, or write, what is waiting."""
        self._run.finish()


class Curves:
    """Several loggers of curves and images (``TensorBoard``, ``WandbLog``), as one."""

    def __init__(self, *loggers: Any) -> None:
        self._loggers = loggers

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        """Add a value to the curve ``name``."""
        for logger in self._loggers:
            logger.add_scalar(name, value, iteration)

    def add_image(self, name: str, image: np.ndarray, iteration: int) -> None:
        """Show an image, 3 x H x W, RGB, 8 bits."""
        for logger in self._loggers:
            logger.add_image(name, image, iteration)

    def close(self) -> None:
        """Close all."""
        for logger in self._loggers:
            logger.close()
