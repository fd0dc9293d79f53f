"""What a training run tells: a progress bar, log lines, and TensorBoard."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from basicsr.utils import get_root_logger
from torch import Tensor
from tqdm import tqdm

from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runs.run import Run
from mipkd_sr.training.curves import Curves, TensorBoard, WandbLog

TELL_SECONDS = 2.0
"""Seconds between two writes of a run's progress."""


class ProgressLog:
    """Reports the progress of a training run from ``first_iter`` on. Ranks other than the first report nothing."""

    def __init__(self, opt: TrainingOptions, first_iter: int) -> None:
        self.total_iter = opt['train']['total_iter']
        self.run = Run.of(opt)
        self._told = 0.0
        self.first_iter = first_iter
        self.start_time = self._fetching = self._reported = time.monotonic()
        self._waited = self._in_steps = 0.0
        self._steps = 0
        self.silent = opt['rank'] != 0
        self.logger = get_root_logger()
        loggers: list[TensorBoard | WandbLog] = []
        if opt['logger']['use_tb_logger'] and not self.silent:
            loggers.append(TensorBoard(self.run.tensorboard, first_iter))
        if opt['logger']['wandb']['project'] and not self.silent:
            loggers.append(WandbLog(opt))
        self.tb_logger = Curves(*loggers) if loggers else None
        # disable=None: no bar where there is no terminal; the log lines carry the ETA too
        self.bar = tqdm(
            total=self.total_iter,
            initial=first_iter - 1,
            unit='it',
            disable=True if self.silent else None,
            dynamic_ncols=True,
        )

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches; notes how long each was waited for."""
        self._fetching = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - self._fetching
            yield batch
            self._fetching = time.monotonic()

    def advance(self) -> None:
        """Note that one iteration is done."""
        self._in_steps += time.monotonic() - self._fetching
        self._steps += 1
        self.bar.update()
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            with suppress(OSError):  # a full disk must not end the run for this
                self.tell()

    def tell(self) -> None:
        """Write to the run's folder how far it has come."""
        if not self.silent and self._steps:
            self.run.save_timing(self.first_iter - 1 + self._steps, self._in_steps / self._steps)

    def log_step(self, epoch: int, iteration: int, lr: float, values: Mapping[str, float]) -> None:
        """Log an iteration: its learning rate, losses (``l_...``) and further values by name."""
        if self.silent:
            return
        now = time.monotonic()
        data_share = self._waited / max(now - self._reported, 1e-9)
        self._waited, self._reported = 0.0, now
        seconds = (now - self.start_time) / (iteration - self.first_iter + 1)
        eta = timedelta(seconds=int(seconds * (self.total_iter - iteration)))
        losses = {name: value for name, value in values.items() if name.startswith('l_')}
        text = ', '.join(f'{name}: {value:.4e}' for name, value in losses.items())
        self.logger.info(
            f'epoch {epoch}, iter {iteration:,}/{self.total_iter:,}, lr {lr:.3e}, {seconds:.3f} s/it '
            f'(data {data_share:.0%}), eta {eta}, {text}'
        )
        self.bar.set_postfix({name: f'{value:.3g}' for name, value in losses.items()}, refresh=False)
        if self.tb_logger:
            for name, value in values.items():
                self.tb_logger.add_scalar(f'losses/{name}' if name in losses else name, value, iteration)
            self.tb_logger.add_scalar('lr', lr, iteration)

    def log_gradients(self, iteration: int, gradients: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Log what ``DistillStep.finish`` gave, if anything, and add it to the run's gradients.jsonl."""
        if self.silent or not gradients:
            return
        values = {name: (float(norm), float(cosine)) for name, (norm, cosine) in gradients.items()}
        text = ', '.join(f'{name} {norm:.3g} ({cosine:+.2f})' for name, (norm, cosine) in values.items())
        self.logger.info(f"iter {iteration:,}, gradients as multiples of l_pix's (cosine with it): {text}")
        with self.run.gradients_file.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'iter': iteration, 'losses': values}) + '\n')
        if self.tb_logger:
            for name, (norm, cosine) in values.items():
                self.tb_logger.add_scalar(f'gradients/{name}', norm, iteration)
                self.tb_logger.add_scalar(f'cosines/{name}', cosine, iteration)

    def close(self) -> None:
        """Close the progress bar and TensorBoard's file."""
        self.bar.close()
        if self.tb_logger:
            self.tb_logger.close()
