"""``--dry_run``: everything is checked and built, what would run is printed, and nothing is written."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from mipkd_sr.archs import build_network, feature_shapes
from mipkd_sr.archs.loading import NetworkOptions, load_trained
from mipkd_sr.commands.command_line import EXIT_MISSING_DATA
from mipkd_sr.data import build_dataset, lq_patch_size, metrics_of
from mipkd_sr.data.mixing import collate
from mipkd_sr.data.stream import SeededDataset, samples_an_iteration
from mipkd_sr.distill.objective import Objective
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.evaluation.evaluate import evaluate
from mipkd_sr.evaluation.published import published_rows
from mipkd_sr.evaluation.tested import figures_of
from mipkd_sr.metrics import needs_hr
from mipkd_sr.models import build_model
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.objectives import check_data
from mipkd_sr.models.teachers import ONLY
from mipkd_sr.option_types import RunOptions, TrainingOptions
from mipkd_sr.options.reading import Options
from mipkd_sr.runs.folder_lock import TESTING_MARKS, TRAINING_MARKS, check_ours
from mipkd_sr.runs.run_options import missing_paths
from mipkd_sr.runs.start import find_start, resume
from mipkd_sr.runtime.errors import OptionError, RunError, traced


def describe_training(options: Options) -> int:
    """Check and build what a training run needs, try a step of it, and print it. Writes nothing.

    Returns the exit code: 0, or 3 if all is right except that data or checkpoints are not there.
    """
    opt = options.data
    check_ours(Path(opt['path']['experiments_root']), TRAINING_MARKS)
    missing = leave_out_missing(opt)
    there = datasets_there(options.training, missing)
    lengths = {phase: len(dataset) for phase, dataset in there.items()}  # type: ignore[arg-type]
    model = build_model(options.training)
    if start := find_start(opt, auto_resume=False):
        resume(model, start)
    try_samples(options.training, there)
    if 'train' in there:
        _try_step(model, options.training, there['train'])
    lines = [
        f'{opt["name"]}: {type(model).__name__}, x{opt["scale"]}, would be written to {opt["path"]["experiments_root"]}'
    ]
    lines += _describe_networks(model)
    lines += _describe_iterations(options.training, lengths)
    for key, objective in model.objectives.items():
        lines.append(f'  train:{key}_opt: {opt["train"][f"{key}_opt"]["type"]}{_describe_term(objective)}')
        unit_pairs = zip(objective.student_indices(), objective.teacher_indices(), strict=True)
        lines += _describe_positions(model, objective, list(unit_pairs), lq_patch_size(options.training))
    print('\n'.join(lines))
    return print_missing(options, missing)


def leave_out_missing(opt: dict[str, Any]) -> list[OptionError]:
    """Leave out checkpoints, and losses whose files are not there, and return all that is missing."""
    missing = missing_paths(opt)
    for error in missing:
        if error.key.startswith('path:'):
            _, name, *teacher = error.key.split(':')
            network = opt.get(name.replace('pretrain_', ''), {})
            if (network[teacher[0]] if teacher else network).get('type') == 'Spandrel':
                raise error  # without its checkpoint there is no network to describe
            if teacher:
                opt['path'][name][teacher[0]] = None
            else:
                opt['path'][name] = None
        elif error.key.startswith('train:'):
            opt['train'][error.key.split(':')[1]] = None
        elif error.key.startswith('networks:'):
            opt['networks'][error.key.split(':')[1]]['path'] = None
    return missing


def datasets_there(opt: RunOptions, missing: list[OptionError]) -> dict[str, Dataset]:
    """Build the data sets that are there, by phase."""
    absent = {error.key.split(':')[1] for error in missing if error.key.startswith('datasets:')}
    return {phase: build_dataset(opt, phase) for phase in opt['datasets'] if phase not in absent}


def try_samples(opt: RunOptions, datasets: Mapping[str, Dataset]) -> None:
    """Read a sample of each validation or test set, and call each metric once."""
    bicubic = build_network({'type': 'Bicubic', 'upscale': opt['scale']})
    for phase, dataset in datasets.items():
        if phase == 'train':
            continue
        with _said_as(f'datasets:{phase}: its sample 0 cannot be read'):
            sample = dataset[0]
        _require(sample, ('lq', 'lq_path'), phase)
        if metrics := metrics_of(opt):
            if any(needs_hr(metric) for metric in metrics.values()):
                _require(sample, ('gt', 'gt_path'), phase)
            evaluate({'bicubic': bicubic}, [default_collate([sample])], metrics, torch.device('cpu'))


@contextmanager
def _said_as(what: str) -> Iterator[None]:
    """A context in which whatever a user's class raises is a RunError that begins with ``what``."""
    try:
        yield
    except (OptionError, RunError):
        raise
    except Exception as error:
        raise RunError(f'{what}: {traced(error)}.') from error


def _training_samples(train_set: Dataset, count: int, seed: int) -> list[Any]:
    """Samples from all over a set, as training reads them."""
    seeded, length = SeededDataset(train_set, seed), len(train_set)  # type: ignore[arg-type]
    samples = [seeded[0, number * length // count] for number in range(count)]
    if not all(isinstance(sample, Mapping) and sample.keys() & {'lq', 'gt'} for sample in samples):
        raise OptionError('datasets:train', "its samples have neither 'lq' nor 'gt', one of which is needed here.")
    return samples


def _require(sample: Any, names: Iterable[str], phase: str) -> None:
    """See that a sample has what is wanted of it."""
    for name in names:
        if not isinstance(sample, Mapping) or name not in sample:
            raise OptionError(f'datasets:{phase}', f"its samples have no '{name}', which is needed here.")


def _try_step(model: DistillModel, opt: TrainingOptions, train_set: Dataset) -> None:
    """Take a step of few samples, on a model that is thrown away after it."""
    least = max(objective.least_batch() for objective in model.objectives.values())
    parts = opt['train']['accumulation_steps']
    batch = min(opt['datasets']['train']['batch_size_per_gpu'], max(2, least) * parts)
    samples = _training_samples(train_set, batch, opt['manual_seed'])
    check_data(model, train_set)
    with _said_as('a training step fails'):
        model.feed_data(collate(samples))
        model.optimize_parameters(1)
        model.get_current_log()


def print_missing(options: Options, missing: list[OptionError]) -> int:
    """Print what is missing, and return the exit code of a dry run."""
    for error in missing:
        print(f'missing: {options.explain(error)}')
    return EXIT_MISSING_DATA if missing else 0


def _describe_networks(model: DistillModel) -> list[str]:
    lines = [f'  student: {type(model.net_g).__name__}, {count_parameters(model.net_g):,} parameters']
    for name, net in model.teachers.items():
        what = name if name == ONLY else f'teacher {name}'
        kind = getattr(net, 'description', type(net).__name__)
        lines.append(f'  {what}: {kind}, {count_parameters(net):,} parameters')
    beside = sum(count_parameters(objective) for objective in model.objectives.values())
    if beside:
        lines.append(f'  learned beside the student and not part of its file: {beside:,} parameters')
    return lines


def _describe_iterations(opt: TrainingOptions, lengths: dict[str, int]) -> list[str]:
    side = lq_patch_size(opt)
    total, samples = opt['train']['total_iter'], samples_an_iteration(opt)
    processes = f'{opt["world_size"]} process(es)'
    lines = [f'  iterations: {total:,}, each of {samples} patches of {side} x {side} LR pixels on {processes}']
    for phase, length in lengths.items():
        text = f'  {phase}: {opt["datasets"][phase]["name"]}, {length:,} images'
        if phase == 'train' and length:
            text += f', gone through {math.ceil(total * samples / length):,} times'
        lines.append(text)
    return lines


def _describe_term(objective: Objective) -> str:
    """What the options say of it beside its class's arguments."""
    parts = []
    if objective.listens_to:
        parts.append('from ' + ', '.join(f'{name} ({weight:.3g})' for name, weight in objective.listens_to.items()))
    if objective.gate:
        parts.append(f'where the teacher is better in {objective.gate} x {objective.gate} pixels')
    if not objective.schedule.is_constant:
        schedule = objective.schedule
        what = f'{schedule.shape} from {schedule.begin:.0%} to {schedule.end:.0%} of the training'
        parts.append(
            what if schedule.shape == 'window' else f'{what}, weight x {schedule.first:g} to {schedule.last:g}'
        )
    return ''.join(f', {part}' for part in parts)


def _describe_positions(
    model: DistillModel, objective: Objective, unit_pairs: list[tuple[int, int]], side: int
) -> list[str]:
    if not unit_pairs or model.net_t is None:
        return []
    student: Any = model.net_g
    name = next(iter(objective.listens_to), None)
    teacher: Any = model.teachers[name] if name else model.net_t
    shapes_s = feature_shapes(student, [index for index, _ in unit_pairs], side)
    shapes_t = feature_shapes(teacher, [index for _, index in unit_pairs], side)
    return [
        f'    position {k}: student after unit {index_s} of {student.depth}, {_size(shapes_s[index_s])}; '
        f'teacher after unit {index_t} of {teacher.depth}, {_size(shapes_t[index_t])}'
        for k, (index_s, index_t) in enumerate(unit_pairs, 1)
    ]


def _size(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape))


def describe_testing(options: Options, entries: Mapping[str, NetworkOptions]) -> int:
    """Build the networks ``entries`` and the test sets, check all that a test needs, and print it. Writes nothing.

    Returns the exit code, as ``describe_training``'s.
    """
    opt = options.testing
    check_ours(Path(opt['path']['results_root']), TESTING_MARKS)
    missing = missing_paths(options.data)
    absent = {error.key for error in missing}
    datasets = datasets_there(opt, missing)
    lines = [f'{opt["name"]}: x{opt["scale"]}, results would be written to {opt["path"]["results_root"]}']
    for name, entry in entries.items():
        if entry.file_key in absent:
            entry = replace(entry, file=None, needs_file=False)
        net = load_trained(entry, opt['scale'])
        lines.append(f'  network {name}: {type(net).__name__}, {count_parameters(net):,} parameters')
    for phase, dataset in datasets.items():
        lines.append(f'  {phase}: {opt["datasets"][phase]["name"]}, {len(dataset):,} images')  # type: ignore[arg-type]
    if opt.get('published') and 'published_file' not in absent:
        published_rows(opt)
    try_samples(opt, datasets)
    if len(datasets) == len(opt['datasets']):
        figures_of(opt, datasets)
    print('\n'.join(lines))
    return print_missing(options, missing)
