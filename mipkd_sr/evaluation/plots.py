"""A paper's figures from the files that runs and tests have written."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.figures import (
    agreement_figure,
    bars_figure,
    curves_figure,
    gradients_figure,
    parameters_figure,
)
from mipkd_sr.evaluation.results import ENSEMBLE
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import read_json

TO = 'psnr_to_'
"""The metric of agreement with a teacher has this name, followed by the teacher's."""


def _read(file: Path) -> Any:
    """A file that a run or a test has written."""
    if (content := read_json(file, None)) is None:
        raise OptionError('', f'{file} is not there, or is not what a run or a test writes; give the folder of one.')
    return content


@contextmanager
def _form_expected(what: object) -> Iterator[None]:
    """A context that turns errors from files of another form than expected into an OptionError about ``what``."""
    try:
        yield
    except OptionError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        message = f'{what} holds something else than a run or a test writes; give the folder of one.'
        raise OptionError('', message) from None


def read_results(folder: Path, sized: bool = False) -> dict[str, tuple[int, dict[str, dict[str, float]]]]:
    """A test's results: for each network its parameters, and on each test set the means of its metrics.

    A network's self-ensemble is left out if the network itself is there, too; with ``sized`` so is a network whose
    parameters are not known, as an exported file's.
    """
    rows = _read(folder / 'results.json')
    return {
        name: (row['parameters'], {test_set: mean_metrics(images) for test_set, images in row['images'].items()})
        for name, row in rows.items()
        if name.removesuffix(ENSEMBLE) not in rows.keys() - {name} and not (sized and row['parameters'] is None)
    }


def _label(metric: str) -> str:
    return metric.upper() + (', dB' if metric.startswith('psnr') else '')


def plot_parameters(folder: Path, metric: str, stem: Path) -> list[Path]:
    """Draw quality against parameters, from ``folder``/results.json, as ``stem``.png and .pdf."""
    networks = {}
    with _form_expected(folder):
        for name, (parameters, means) in read_results(folder, sized=True).items():
            if any(metric not in values for values in means.values()):
                known = ', '.join(next(iter(means.values())))
                raise OptionError('--metric', f'{folder} has no {metric}; it has: {known}.')
            networks[name] = parameters, {test_set: values[metric] for test_set, values in means.items()}
        if not all(values for _, values in networks.values()) or not networks:
            raise OptionError('', f'{folder} holds no results; give the folder of a test.')
        return parameters_figure(networks, _label(metric), stem)


def plot_gains(folder: Path, metric: str, stem: Path) -> list[Path]:
    """Draw what methods gain against how far a student is compressed, from ``folder``/results.json.

    A student is a row "SIZE, METHOD"; its gain is over "SIZE, scratch", and its compression rate the parameters of the
    largest network over its own.
    """
    panels: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    with _form_expected(folder):
        rows = read_results(folder, sized=True)
        largest = max(parameters for parameters, _ in rows.values())
        for name, row in rows.items():
            size, _, method = name.rpartition(', ')
            plain = rows.get(f'{size}, scratch', row)
            for test_set, means in row[1].items() if plain is not row else ():
                gain = means[metric] - plain[1][test_set][metric]
                panel = panels.setdefault(f'{test_set}: parameters of the largest / own', {})
                panel.setdefault(method, []).append((largest / row[0], gain, gain, gain))
        if not panels:
            raise OptionError(
                '', f'{folder} has no rows "SIZE, METHOD" beside "SIZE, scratch"; test those of a family.'
            )
        curves = {
            title: {name: np.array(sorted(own)).T for name, own in panel.items()} for title, panel in panels.items()
        }
        return curves_figure(curves, f'gain over scratch, {_label(metric)}', stem, whole=True)


def plot_agreement(folder: Path, stem: Path) -> list[Path]:
    """Draw each network's agreement with the teacher, from ``folder``/results.json, as ``stem``.png and .pdf."""
    networks: dict[str, dict[str, float]] = {}
    teacher = ''
    with _form_expected(folder):
        for name, (_, of_sets) in read_results(folder).items():
            for test_set, means in of_sets.items():
                for metric, value in means.items():
                    if metric.startswith(TO):
                        teacher = metric.removeprefix(TO)
                        networks.setdefault(name, {})[test_set] = value
        if not networks:
            message = f"{folder} has no network's agreement with a teacher; name the teacher in the test's options."
            raise OptionError('', message)
        return agreement_figure(networks, teacher, stem)


def plot_gradients(folder: Path, stem: Path) -> list[Path]:
    """Draw each loss's gradient on the student over the steps, from ``folder``/gradients.jsonl."""
    file = folder / 'gradients.jsonl'
    if not file.is_file():
        raise OptionError('', f'{file} is not there; train with logger:gradients.')
    with _form_expected(file):
        lines = [line for line in file.read_text(encoding='utf-8').split('\n')[:-1] if line]  # the last may be torn
        entries = {entry['iter']: entry['losses'] for entry in map(json.loads, lines)}  # a resumed run's are the later
        names = list(dict.fromkeys(name for losses in entries.values() for name in losses))
        curves = {
            name: [(step, *map(float, losses[name])) for step, losses in sorted(entries.items()) if name in losses]
            for name in names
        }
        return gradients_figure(curves, stem)


def plot_curves(histories: Mapping[Path, Path], metric: str, stem: Path) -> list[Path]:
    """Draw a metric of the first validation set over the steps; ``histories`` has a run's file of validations by its
    folder.
    """
    runs = {}
    for folder, file in histories.items():
        with _form_expected(folder):
            entries = _read(file)
            points = [
                (int(entry['iter']), *3 * [float(entry[metric])])
                for entry in entries
                if entry['dataset'] == entries[0]['dataset'] and metric in entry
            ]
        if points:
            runs[folder.name] = np.array(points).T
    if not runs:
        raise OptionError('--metric', f'no run has a validation with {metric}; give one that the runs measure.')
    with _form_expected('one of the folders'):
        return curves_figure({'steps': runs}, _label(metric), stem, whole=True)


def plot_bars(folder: Path, metric: str, test_set: str, stem: Path) -> list[Path]:
    """Draw the rows of papers' tables as bars, a panel a table and scale, from ``folder``/table.csv."""
    try:
        with (folder / 'table.csv').open(encoding='utf-8', newline='') as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, ValueError):
        raise OptionError('', f'{folder} has no table.csv; give the folder of a page of mipkd table.') from None
    panels: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    with _form_expected(folder / 'table.csv'):
        for line in lines:
            if (line['set'], line['metric']) == (test_set, metric):
                ours, published = (float(text) if (text := line[name]) else None for name in ('ours', 'published'))
                panels.setdefault(f'{line["table"]} x{line["scale"]}', {})[line['row']] = ours, published
    if not panels:
        known = ', '.join(dict.fromkeys(line.get('set') or '' for line in lines))
        raise OptionError('--set', f'{folder} has no {metric} on {test_set}; its sets are: {known}.')
    return bars_figure(panels, f'{_label(metric)} on {test_set}', stem)
