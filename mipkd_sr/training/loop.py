"""The training loop: exactly as many iterations as were asked for, and every one once."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from mipkd_sr.data.stream import samples_an_iteration, training_batches
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.runtime.checkpoint import write_json
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.runtime.stop_requests import Interrupted, StopRequests
from mipkd_sr.training.progress import Reporter


class Progress(NamedTuple):
    """How far a run has come: iterations done, and samples that all ranks together have read."""

    iteration: int = 0
    samples: int = 0


def train(
    model: DistillModel,
    opt: dict[str, Any],
    train_set: Dataset,
    val_loaders: Sequence[DataLoader],
    done: Progress = Progress(),  # noqa: B008  (it cannot be changed)
) -> None:
    """Train ``model`` to iteration ``train:total_iter``.

    Args:
        model: The model; resumed already where something is done.
        opt: The run's options.
        train_set: The training set.
        val_loaders: Validation sets.
        done: What was done before.

    Raises:
        Interrupted: If SIGINT or SIGTERM came. The state after the last whole iteration has been saved.
        RunError: If the numbers are not finite, or an image cannot be read.
        OSError: If something cannot be written.
    """
    total_iter, logger_opt, val_opt = opt['train']['total_iter'], opt['logger'], opt.get('val')
    reporter = Reporter(opt, done.iteration + 1)
    waited = in_steps = 0.0
    reported = fetched = time.monotonic()
    samples = done.samples
    try:
        with StopRequests() as stop:
            if val_loaders and done.iteration == 0:
                model.check_teacher(val_loaders[0])
            batches = training_batches(train_set, opt, done.iteration + 1, done.samples)
            for iteration, batch in enumerate(batches, done.iteration + 1):
                waited += time.monotonic() - fetched
                samples += samples_an_iteration(opt)
                epoch = (samples - 1) // len(train_set)  # type: ignore[arg-type]
                seed_everything(opt['manual_seed'], opt['rank'], iteration)
                model.update_learning_rate(iteration, opt['train']['warmup_iter'])
                model.feed_data(batch)
                model.optimize_parameters(iteration)
                reporter.advance()
                in_steps += time.monotonic() - fetched
                if iteration % logger_opt['print_freq'] == 0:
                    values, now = model.get_current_log(), time.monotonic()
                    share = waited / max(now - reported, 1e-9)
                    reporter.report(epoch, iteration, model.get_current_learning_rate()[0], share, values)
                    waited, reported = 0.0, now
                last, stopped_by = iteration == total_iter, stop.agreed()
                if val_opt and (last or iteration % val_opt['val_freq'] == 0):
                    for val_loader in val_loaders:
                        model.validation(val_loader, iteration, reporter.tb_logger, val_opt['save_img'])
                # after validation, so that the state holds the record of the best
                if last or stopped_by or iteration % logger_opt['save_checkpoint_freq'] == 0:
                    model.save(epoch, iteration, samples)
                if stopped_by and not last:
                    raise Interrupted(iteration, stopped_by)
                fetched = time.monotonic()
    finally:
        reporter.close()
    model.save(-1, -1)
    if opt['rank'] == 0 and done.iteration < total_iter:
        timing = {'seconds_per_step': in_steps / (total_iter - done.iteration)}
        write_json(timing, Path(opt['path']['experiments_root'], 'timing.json'))
