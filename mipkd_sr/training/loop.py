"""The training loop: exactly as many iterations as were asked for, and every one once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from mipkd_sr.data.stream import samples_an_iteration, training_batches
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.runtime.checkpoint import write_json
from mipkd_sr.runtime.errors import Interrupted
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.runtime.stop_requests import StopRequests
from mipkd_sr.training.progress import Reporter


class Progress(NamedTuple):
    """How far a run has come: iterations done, and samples that all ranks together have read."""

    iteration: int = 0
    samples: int = 0


class Trainer:
    """Trains a model to iteration ``train:total_iter``.

    Args:
        model: The model; resumed already where something is done.
        opt: The run's options.
        train_set: The training set.
        val_loaders: Validation sets.
        done: What was done before.
    """

    def __init__(
        self,
        model: DistillModel,
        opt: dict[str, Any],
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
        reporter = Reporter(self.opt, self.done.iteration + 1)
        try:
            with StopRequests() as stop:
                self._look_before_the_first_step(reporter)
                self._take_steps(reporter, stop)
        finally:
            reporter.close()
        self.model.save(-1, -1)
        if self.opt['rank'] == 0 and self.done.iteration < self.opt['train']['total_iter']:
            timing = {'seconds_per_step': reporter.seconds_per_step()}
            write_json(timing, Path(self.opt['path']['experiments_root'], 'timing.json'))

    def _look_before_the_first_step(self, reporter: Reporter) -> None:
        """Measure the teacher; or make up for a validation that the state was saved before."""
        if self.val_loaders and self.done.iteration == 0:
            self.model.check_teacher(self.val_loaders[0])
        elif self._validation_is_due(self.done.iteration) and not self.model.record.has(self.done.iteration):
            self._validate(self.done, reporter, saved=True)

    def _take_steps(self, reporter: Reporter, stop: StopRequests) -> None:
        """One iteration after the other; each is saved, where that is due, before it is validated."""
        total_iter, done = self.opt['train']['total_iter'], self.done
        batches = training_batches(self.train_set, self.opt, done.iteration + 1, done.samples)
        for batch in reporter.timed(batches):
            done = Progress(done.iteration + 1, done.samples + samples_an_iteration(self.opt))
            self._take_step(batch, done.iteration)
            reporter.advance()
            if done.iteration % self.opt['logger']['print_freq'] == 0:
                lr, values = self.model.get_current_learning_rate()[0], self.model.get_current_log()
                reporter.report(self._epoch(done), done.iteration, lr, values)
            last, stopped_by = done.iteration == total_iter, stop.agreed()
            saved = last or bool(stopped_by) or done.iteration % self.opt['logger']['save_checkpoint_freq'] == 0
            if saved:
                self.model.save(self._epoch(done), done.iteration, done.samples)
            if stopped_by and not last:
                raise Interrupted(done.iteration, stopped_by)
            if self._validation_is_due(done.iteration):
                self._validate(done, reporter, saved)

    def _take_step(self, batch: Mapping[str, Any], iteration: int) -> None:
        seed_everything(self.opt['manual_seed'], self.opt['rank'], iteration)
        self.model.update_learning_rate(iteration, self.opt['train']['warmup_iter'])
        self.model.feed_data(batch)
        self.model.optimize_parameters(iteration)

    def _epoch(self, done: Progress) -> int:
        """Times that the data set has been gone through."""
        return (done.samples - 1) // len(self.train_set)  # type: ignore[arg-type]

    def _validation_is_due(self, iteration: int) -> bool:
        last = iteration == self.opt['train']['total_iter']
        return bool(self.val_loaders) and (last or iteration % self.opt['val']['val_freq'] == 0)

    def _validate(self, done: Progress, reporter: Reporter, saved: bool) -> None:
        """Validate, and save the record of it; a state that was saved before has it from then on.

        Whatever goes wrong with an image costs no iteration: the state is saved.
        """
        record_before = self.model.record.copy()
        try:
            for val_loader in self.val_loaders:
                self.model.validation(val_loader, done.iteration, reporter.tb_logger, self.opt['val']['save_img'])
        except Exception:
            self.model.record = record_before
            if not saved:
                self.model.save(self._epoch(done), done.iteration, done.samples)
            raise
        self.model.save_record(self._epoch(done), done.iteration, done.samples, with_state=saved)
