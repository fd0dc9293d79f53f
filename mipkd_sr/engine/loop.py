"""The training loop: exactly as many iterations as were asked for, and every one once."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from mipkd_sr.data.stream import training_batches
from mipkd_sr.engine.checkpoint import write_json
from mipkd_sr.engine.reporter import Reporter
from mipkd_sr.engine.seeding import seed_everything
from mipkd_sr.models.distill_model import DistillModel


class Interrupted(Exception):
    """The run was asked to stop (SIGINT or SIGTERM) and has saved its state.

    Args:
        iteration: The last iteration that was done.
        signal_number: The signal.
    """

    def __init__(self, iteration: int, signal_number: int) -> None:
        super().__init__(f'stopped by {signal.Signals(signal_number).name} after iteration {iteration}')
        self.exit_code = 128 + signal_number


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one has its usual effect."""
    requests: list[int] = []
    usual = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        requests.append(number)
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def train(
    model: DistillModel, opt: dict[str, Any], train_set: Dataset, val_loaders: Sequence[DataLoader], done: int = 0
) -> None:
    """Train ``model`` from iteration ``done`` + 1 to ``train:total_iter``.

    Args:
        model: The model; resumed already where ``done`` is not 0.
        opt: The run's options.
        train_set: The training set.
        val_loaders: Validation sets.
        done: Iterations that were done before.

    Raises:
        Interrupted: If SIGINT or SIGTERM came. The state after the last whole iteration has been saved.
    """
    total_iter, logger_opt, val_opt = opt['train']['total_iter'], opt['logger'], opt.get('val')
    samples_an_iter = opt['datasets']['train']['batch_size_per_gpu'] * opt['world_size']
    reporter = Reporter(opt, done + 1)
    waited = in_steps = 0.0
    reported = fetched = time.monotonic()
    try:
        with _stop_requests() as requests:
            for iteration, batch in enumerate(training_batches(train_set, opt, done + 1), done + 1):
                waited += time.monotonic() - fetched
                epoch = (iteration * samples_an_iter - 1) // len(train_set)  # type: ignore[arg-type]
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
                last = iteration == total_iter
                if val_opt and (last or iteration % val_opt['val_freq'] == 0):
                    for val_loader in val_loaders:
                        model.validation(val_loader, iteration, reporter.tb_logger, val_opt['save_img'])
                # after validation, so that the state holds the record of the best
                if last or requests or iteration % logger_opt['save_checkpoint_freq'] == 0:
                    model.save(epoch, iteration)
                if requests and not last:
                    raise Interrupted(iteration, requests[0])
                fetched = time.monotonic()
    finally:
        reporter.close()
    model.save(-1, -1)
    if opt['rank'] == 0 and done < total_iter:
        timing = {'seconds_per_step': in_steps / (total_iter - done)}
        write_json(timing, Path(opt['path']['experiments_root'], 'timing.json'))
