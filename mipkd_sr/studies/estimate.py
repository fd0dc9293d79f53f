"""How long a study will take on this machine, from a few steps of each variant; and each step's multiply-adds."""

import logging
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.utils import get_root_logger

from mipkd_sr.costs.counting import count_needed
from mipkd_sr.costs.methods import batch_for, take_step
from mipkd_sr.data import build_dataset
from mipkd_sr.evaluation.complexity import seconds_of
from mipkd_sr.models import build_model
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import fits, read_json, write_json
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.studies.job import Job

STEPS, COUNTED = 12, 24
"""Steps that are timed, and steps whose multiply-adds are counted. Methods that choose at random need several."""


class Estimate(NamedTuple):
    """What a variant is expected to need on one of the machine's devices."""

    seconds_per_step: float  # seconds of a training step, without the reading of images; the median
    multiply_adds_per_step: float  # multiply-adds that a step needs, teacher included; the mean
    seconds_per_validation: float  # seconds of one validation on all validation sets

    def seconds(self, job: Job, steps: int) -> float:
        """Seconds of ``steps`` steps of a run, validations included."""
        return steps * (self.seconds_per_step + self.seconds_per_validation / job.options['val']['val_freq'])


def machine(threads: int) -> str:
    """The machine that times hold for."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{platform.processor() or "CPU"}'
    return f'{platform.node()}, {device}, {threads} thread(s) a run, torch {torch.__version__}'


def threads_a_run(at_a_time: int) -> int:
    """Threads of each of several runs on a CPU: OMP_NUM_THREADS, else an equal share of the cores."""
    own = os.environ.get('OMP_NUM_THREADS', '').partition(',')[0]
    return (int(own) if own.isdigit() else 0) or max(1, (os.cpu_count() or 1) // at_a_time)


def estimates(jobs: Sequence[Job], file: Path, threads: int | None = None) -> dict[str, Estimate]:
    """Each variant's estimate, as far as ``file`` has it.

    With ``threads``, those of a run on a CPU, estimates of this machine that the file lacks are measured and written.
    """
    kept = read_json(file, {})
    entry = {'digest': str, 'machine': str, **dict.fromkeys(Estimate._fields, float)}
    kept = kept if fits(kept, {str: entry}) else {}
    found: dict[str, dict[str, Any]] = {}
    firsts: dict[str, Job] = {}
    for job in jobs:
        firsts.setdefault(job.variant, job)
    for job in firsts.values():
        own = kept.get(job.variant, {})
        if own.get('digest') == job.digest and (threads is None or own['machine'] == machine(threads)):
            found[job.variant] = own
        elif threads is not None:
            print(f'  {job.variant}', flush=True)
            try:
                measured = measure(job.completed_options().training, threads)._asdict()
            except OptionError as error:
                raise OptionError(f'variants:{job.variant}', str(error)) from None
            found[job.variant] = {'digest': job.digest, 'machine': machine(threads), **measured}
    if threads is not None and found != kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(found, file)
    return {name: Estimate(*(entry[field] for field in Estimate._fields)) for name, entry in found.items()}


def measure(opt: TrainingOptions, threads: int) -> Estimate:
    """Measure a few steps of a run, by its completed options, spread over its length, on noise. Nothing is written.

    ``threads`` are torch's on a CPU.
    """
    logger, before = get_root_logger(), torch.get_num_threads()  # of what BasicSR builds it tells each time
    level = logger.level
    logger.setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    try:
        return _measure(opt)
    finally:
        torch.set_num_threads(before)
        logger.setLevel(level)


def _measure(opt: TrainingOptions) -> Estimate:
    distributed.start('none', opt)
    seed_everything(opt['manual_seed'])
    model, device = build_model(opt), torch.device('cuda' if opt['num_gpu'] else 'cpu')
    for group in model.optimizer_g.param_groups:  # noise must not lead the weights astray
        group['lr'] = 0.0
    batch = batch_for(opt, device)
    few = {name: images[:2] for name, images in batch.items()}  # two: RKD relates samples to each other
    total, parts = opt['train']['total_iter'], opt['train']['accumulation_steps']
    model.opt['train']['accumulation_steps'] = 1
    counts = [count_needed(model, few, iteration) / len(few['lq']) for iteration in spread_over(total, COUNTED)]
    take_step(model, batch, total)  # the first of its size has more to do
    times = [seconds_of(partial(take_step, model, batch, step), device) for step in spread_over(total, STEPS)]
    batch_size = opt['datasets']['train']['batch_size_per_gpu']
    return Estimate(
        parts * float(np.median(times)), float(np.mean(counts)) * batch_size * parts, _validation_seconds(model, opt)
    )


def spread_over(total: int, count: int) -> list[int]:
    """Up to ``count`` iterations from 1 to ``total``, evenly spread: the middles of as many equal parts."""
    count = min(count, total)
    return [int((number + 0.5) * total / count) + 1 for number in range(count)]


@torch.no_grad()
def _validation_seconds(model: DistillModel, opt: TrainingOptions) -> float:
    """From one image of each set, run through the networks twice; metrics are computed beside the networks' runs."""
    total = 0.0
    nets = [net for net in (model.net_for_testing(), model.net_t) if net is not None]
    for phase in opt['datasets']:
        if phase != 'train':
            dataset: Any = build_dataset(opt, phase)
            lq = dataset[0]['lq'][None].to(model.device)
            seconds = [sum(seconds_of(partial(net, lq), model.device) for net in nets) for _ in range(2)]
            total += len(dataset) * seconds[1]
    return total
