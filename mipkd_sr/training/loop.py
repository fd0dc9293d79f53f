"""The training loop: exactly as many iterations as were asked for, and every one once."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset

from mipkd_sr.data import shared_images
from mipkd_sr.data.stream import TrainingBatches, samples_an_iteration
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.learning_rate import BEFORE_THE_OPTIMIZER
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime.distributed import longest_silence
from mipkd_sr.runtime.errors import Interrupted, RunError
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.runtime.stop_requests import CANNOT_GO_ON, StopRequests
from mipkd_sr.training.progress_log import ProgressLog


class Progress(NamedTuple):
    """How far a run has come: iterations done, and samples that all ranks together have read."""

    iteration: int = 0
    samples: int = 0


class Trainer:
    """Trains a model to iteration ``train:total_iter``; ``done`` says from where, and is kept up to date."""

    def __init__(
        self,
        model: DistillModel,
        opt: TrainingOptions,
        train_set: Dataset,
        val_loaders: Sequence[DataLoader],
        done: Progress = Progress(),  # noqa: B008  (it cannot be changed)
    ) -> None:
        self.model = model
        self.opt = opt
        self.train_set = train_set
        self.val_loaders = val_loaders if opt.get('val') else []
        self.done = done

    def train(self) -> None:
        """Take the iterations that are left.

        Raises:
            Interrupted: If SIGINT or SIGTERM came. The state after the last whole iteration has been saved.
            RunError: If the numbers are not finite, or an image cannot be read.
            OSError: If something cannot be written.
        """
        before, total_iter = self.done.iteration, self.opt['train']['total_iter']
        progress = ProgressLog(self.opt, before + 1)
        try:
            with StopRequests(longest_silence(self.opt)) as stop:
                self._look_before_the_first_step(progress)
                self._take_steps(progress, stop)
        finally:
            progress.close()
        if before == 0 and not self.model.skipped_steps.taken:
            raise RunError(
                f'Each of the {total_iter:,} iterations was skipped, as the log says why, so that nothing has been '
                'learned: mend that, and run it again.'
            )
        self.model.save(-1, -1)
        progress.tell()

    def _look_before_the_first_step(self, progress: ProgressLog) -> None:
        """Measure the teacher; on resume, make up for a validation that came after the state was saved."""
        if self.val_loaders and self.done.iteration == 0:
            for loader in self.val_loaders:
                if shared := shared_images(self.train_set, loader.dataset):
                    get_root_logger().warning(f'{len(shared)} images are trained on and validated on: {shared[0]}, ...')
            self.model.check_teacher(self.val_loaders[0])
        elif self._validation_is_due() and not self.model.record.has(self.done.iteration):
            self._validate(progress, saved=True)

    def _take_steps(self, progress: ProgressLog, stop: StopRequests) -> None:
        """Take the iterations; where both are due, saving comes before validating."""
        # torch's, where the first step of all was skipped
        warnings.filterwarnings('ignore', BEFORE_THE_OPTIMIZER, UserWarning)
        logger_opt, total_iter = self.opt['logger'], self.opt['train']['total_iter']
        batches = TrainingBatches(self.train_set, self.opt, self.done.iteration + 1, self.done.samples)
        with closing(iter(batches)) as reading:
            for batch in progress.timed(reading):
                if batches.lost or batches.failure:
                    stop.ask()
                stop.tell()
                iteration = self.done.iteration + 1
                self._take_step(batch, iteration)
                self.done = Progress(iteration, self.done.samples + samples_an_iteration(self.opt))
                progress.advance()
                progress.log_gradients(iteration, self.model.gradients)
                if iteration % logger_opt['print_freq'] == 0:
                    lr, values = self.model.get_current_learning_rate()[0], self.model.get_current_log()
                    progress.log_step(self._epoch(), iteration, lr, values)
                last, stopped_by = iteration == total_iter, stop.agreed()
                saved = last or bool(stopped_by) or iteration % logger_opt['save_checkpoint_freq'] == 0
                if saved:
                    self._save()
                if stopped_by and not last:
                    raise batches.failure or _why_stopped(stopped_by, iteration, batches.lost)
                if self._validation_is_due():
                    self._validate(progress, saved)

    def _save(self) -> None:
        self.model.save(self._epoch(), self.done.iteration, self.done.samples)

    def _take_step(self, batch: Mapping[str, Any], iteration: int) -> None:
        seed_everything(self.opt['manual_seed'], self.opt['rank'], iteration)
        self.model.update_learning_rate(iteration, self.opt['train']['warmup_iter'])
        self.model.feed_data(batch)
        self.model.optimize_parameters(iteration)

    def _epoch(self) -> int:
        """Times that the data set has been gone through."""
        return (self.done.samples - 1) // len(self.train_set)  # type: ignore[arg-type]

    def _validation_is_due(self) -> bool:
        iteration, last = self.done.iteration, self.opt['train']['total_iter']
        return bool(self.val_loaders) and (iteration == last or iteration % self.opt['val']['val_freq'] == 0)

    def _validate(self, progress: ProgressLog, saved: bool) -> None:
        """Validate, and save the record, also in a state that was saved just before.

        An image that fails costs no iteration, as the state is saved.
        """
        iteration, record_before = self.done.iteration, self.model.record.copy()
        try:
            for val_loader in self.val_loaders:
                self.model.validation(val_loader, iteration, progress.tb_logger, self.opt['val']['save_img'])
        except Exception:
            self.model.record = record_before
            if not saved:
                self._save()
            raise
        self.model.save_record(self._epoch(), iteration, self.done.samples, with_state=saved)


def _why_stopped(stopped_by: int, iteration: int, lost: str) -> Exception:
    """The exception for a stop that all processes have agreed on."""
    if stopped_by != CANNOT_GO_ON:
        return Interrupted(iteration, stopped_by)
    what, mend = 'Another process cannot go on, as it says itself', 'mend that'
    if lost:
        what = f'A process that reads images {lost}, perhaps for want of memory'
        mend = 'lower datasets:train:num_worker_per_gpu'
    return RunError(f'{what}; iteration {iteration:,} has been saved: {mend}, and go on with --auto_resume.')
