"""The page of a study: Markdown, with tables, curves and the commands behind the numbers; written whole each time."""

import csv
import json
import os
import shlex
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils import get_time_str

from mipkd_sr.evaluation.figures import study_figure
from mipkd_sr.evaluation.tables import digits_of, markdown_table, protocol
from mipkd_sr.options.recipes import RECIPES
from mipkd_sr.runtime.files import atomic_write, read_json
from mipkd_sr.studies.collect import Result, as_plain, datasets_and_metrics, of_variant
from mipkd_sr.studies.folders import RunFolder, TestFolder
from mipkd_sr.studies.plan import Study, study_root
from mipkd_sr.studies.tables import Table, end_table, steps_differences, steps_table, test_differences, test_table

FILES = ('report.md', 'results.json', 'table.csv', 'curves.png', 'curves.pdf')
"""What a study's folder is given."""


def write_page(
    study: Study, run_folders: Sequence[tuple[RunFolder, TestFolder | None]], results: Sequence[Result]
) -> Path:
    """Write the study's page, its raw numbers, its table and its curves; returns the page.

    Raises:
        OSError: If a file cannot be written; those that were there before are still there.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    if results:
        draw_curves(study, results)
        table = StringIO(newline='')
        csv.writer(table).writerows(_csv_rows(study, results))
        _write(table.getvalue(), study.folder / 'table.csv')
    _write(json.dumps(as_plain(results), indent=1) + '\n', study.results_file)
    page = study.folder / 'report.md'
    _write(page_text(study, run_folders, results), page)
    return page


def _write(text: str, file: Path) -> None:
    with atomic_write(file) as part:
        part.write_text(text, encoding='utf-8', newline='')


def archive_earlier(study: Study, results: Sequence[Result]) -> Path | None:
    """Move what was written here, if some of it is not among ``results``, into a folder of its own; returns that."""
    here = [result.digest for result in results]
    earlier = read_json(study.results_file, None)
    if not study.results_file.exists() or (
        isinstance(earlier, list) and all(isinstance(entry, dict) and entry.get('digest') in here for entry in earlier)
    ):
        return None
    folder = study.folder / f'earlier_{get_time_str()}'
    folder.mkdir()
    for name in FILES:
        if (study.folder / name).exists():
            (study.folder / name).rename(folder / name)
    return folder


def page_text(
    study: Study, run_folders: Sequence[tuple[RunFolder, TestFolder | None]], results: Sequence[Result]
) -> str:
    """The page's text."""
    parts = [f'# {_escaped(study.folder.name)}: report', _state(study, run_folders, results)]
    done = [result for result in results if result.finished]
    if done:
        parts += ['## At the end', _END_TEXT.format(baseline=_escaped(study.baseline)), _table(end_table(study, done))]
    if results:
        parts += ['## Over the steps', _CURVES_TEXT, '![curves](curves.png)']
        for dataset, metrics in datasets_and_metrics(results).items():
            if study.report_at:
                tables = (make(study, results, dataset, metrics[0]) for make in (steps_table, steps_differences))
                parts += [f'{metrics[0]} on {dataset}:', *(_table(table) for table in tables if table[1])]
    if any(result.tests for result in results):
        assert study.test is not None
        parts += ['## Test sets', _TEST_TEXT.format(protocol=protocol(study.test)), _table(test_table(study, results))]
        if (differences := test_differences(study, results))[1]:
            parts += [_TEST_DIFFERENCES_TEXT, _table(differences)]
    parts += ['## Commands', _commands(study, run_folders, results)]
    return '\n\n'.join(parts) + '\n'


_END_TEXT = (
    'The last validation of each run that has finished: mean and standard deviation over seeds. Differences to '
    '"{baseline}" are paired by seed; in brackets is the 95 % t-interval over seeds. Multiply-adds are those of the '
    'whole training, teacher included, as a multiple of the same; seconds a step were measured before the runs, where '
    'that was done.'
)
_CURVES_TEXT = (
    'Validation against steps, seconds and multiply-adds: means over the seeds that have got there, with bands from '
    'least to greatest. '
    'Seconds are steps times seconds a step, as in the table; validations are not counted. At a step in the middle of '
    'its schedule a longer run is not the same as a shorter one at its end.'
)
_TEST_TEXT = (
    'The weights at the end of each run, measured once; nothing was chosen by them. {protocol} Mean and standard '
    'deviation over seeds.'
)
_TEST_DIFFERENCES_TEXT = (
    'Differences in the first metric: with the 95 % t-interval over seeds, and with a bootstrap interval over images '
    '(each image a mean over seeds; it tells nothing of the seeds).'
)


def _state(study: Study, run_folders: Sequence[tuple[RunFolder, TestFolder | None]], results: Sequence[Result]) -> str:
    finished = sum(result.finished for result in results)
    text = f'{finished} of {len(run_folders)} runs have finished.'
    if finished < len(run_folders):
        begun = len(results) - finished
        text += f' **These are partial results**: {begun} more have begun, and the intervals are of what there is.'
    versions = sorted({version for result in results for version in result.code})
    unknown = sum(not result.code for result in results)
    if versions:
        text += f' Trained by mipkd_sr {", ".join(versions)}.'
    if unknown:
        text += f' For {unknown} runs the version of the code is not known.'
    return text


def _table(table: Table) -> str:
    header, body = table
    return markdown_table([_escaped(cell) for cell in header], [[_escaped(cell) for cell in row] for row in body])


def _escaped(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')


def _csv_rows(study: Study, results: Sequence[Result]) -> list[list[Any]]:
    """Every validation's and every test set's means, a value a row."""
    rows: list[list[Any]] = [['variant', 'seed', 'steps', 'set', 'kind', 'metric', 'value']]
    for result in results:
        for entry in result.validations:
            rows += [
                [result.variant, result.seed, entry['iter'], entry['dataset'], 'validation', name, value]
                for name, value in entry.items()
                if name not in ('iter', 'dataset')
            ]
        for name, images in result.tests.items():
            for metric in next(iter(images.values()), {}):
                mean = float(np.mean([row[metric] for row in images.values()]))
                rows.append([result.variant, result.seed, result.total_iter, name, 'test', metric, mean])
    return rows


def _commands(
    study: Study, run_folders: Sequence[tuple[RunFolder, TestFolder | None]], results: Sequence[Result]
) -> str:
    """The command for the whole, and for each number's run."""
    home = study_root(study.file)
    imports = ['--import', *_imports(study, home)] if study.imports else []
    whole = shlex.join(['mipkd', 'compare', _from_root(study.file, home), *imports])
    lines = [f"The whole study, from the project's folder: `{whole}`. Run by run:", '', '```']
    shown = {result.run for result in results}
    for run_folder, test in run_folders:
        if run_folder.name not in shown:
            continue
        lines.append(shlex.join(['mipkd', 'train', *imports, *_training_arguments(run_folder, home)]))
        if test is not None:
            lines.append(shlex.join(['mipkd', 'test', *imports, *_testing_arguments(study, run_folder, test)]))
    return '\n'.join([*lines, '```'])


def _imports(study: Study, home: Path) -> list[str]:
    """The packages of the user's as a command run in ``home`` finds them: what is not installed by its folder."""
    return [_from_root(Path(name), home) if os.sep in name else name for name in study.imports]


def _training_arguments(run_folder: RunFolder, home: Path) -> list[str]:
    variant = run_folder.run.variant
    force = [f'name={run_folder.name}', f'manual_seed={run_folder.run.seed}', *variant.force]
    if variant.steps != 1:
        train = variant.options['train']
        force.append(f'train:total_iter={train["total_iter"]}')
        if train['warmup_iter'] > 0:
            force.append(f'train:warmup_iter={train["warmup_iter"]}')
        schedule = train['scheduler']
        force += [f'train:scheduler:{k}={v}' for k, v in schedule.items() if k in ('milestones', 'periods', 'restarts')]
    return ['-opt', _option_file(variant.recipe, home), '--root', '.', '--force_yml', *force]


def _testing_arguments(study: Study, run_folder: RunFolder, test: TestFolder) -> list[str]:
    assert study.test_file is not None
    weights = _from_root(run_folder.weights, study.root)
    force = [f'{name}=~' for name in ('networks', 'teacher', 'published', 'figure')]
    force += [
        f'network_g={json.dumps(run_folder.run.variant.options["network_g"])}',
        f'path:pretrain_network_g={weights}',
    ]
    return [
        '-opt',
        _option_file(study.test_file, study_root(study.file)),
        '--root',
        '.',
        '--force_yml',
        f'name={test.name}',
        *force,
    ]


def _option_file(file: Path, root: Path) -> str:
    """An option file as a command run in ``root`` takes it: a shipped recipe by its name."""
    if RECIPES in file.parents:
        return file.relative_to(RECIPES).with_suffix('').as_posix()
    return _from_root(file, root)


def _from_root(file: Path, root: Path) -> str:
    return Path(os.path.relpath(os.path.normpath(file), root)).as_posix()


def draw_curves(study: Study, results: Sequence[Result]) -> list[Path]:
    """Draw the first metric on the first validation set against steps, seconds and multiply-adds."""
    dataset, metrics = next(iter(datasets_and_metrics(results).items()))
    steps = {name: curve for name in study.variants if (curve := _mean_curve(results, name, dataset, metrics[0])).size}
    panels = {'steps': steps}
    for label, name in (('seconds', 'seconds_per_step'), ('multiply-adds', 'multiply_adds_per_step')):
        costs = {variant: getattr(of_variant(results, variant)[0], name) for variant in steps}
        scaled = {variant: _scaled(steps[variant], cost) for variant, cost in costs.items() if cost is not None}
        if scaled:
            panels[label] = scaled
    unit = ', dB' if digits_of(metrics[0]) == 2 else ''
    return study_figure(panels, f'{metrics[0].upper()} on {dataset}{unit}', study.folder / 'curves')


def _scaled(curve: np.ndarray, factor: float) -> np.ndarray:
    return np.concatenate([factor * curve[:1], curve[1:]])


def _mean_curve(results: Sequence[Result], variant: str, dataset: str, metric: str) -> np.ndarray:
    """4 x points: steps, and mean, least and greatest value over the seeds that have reached them."""
    at: dict[int, list[float]] = {}
    for result in of_variant(results, variant):
        for step, value in result.curve(dataset, metric):
            at.setdefault(step, []).append(value)
    points = [(step, np.mean(values), min(values), max(values)) for step, values in sorted(at.items())]
    return np.array(points, float).T.reshape(4, len(points))
