"""Where the runs of a study lie, told by what they compute: what is there already is found and not trained again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mipkd_sr.options.keys import TEST
from mipkd_sr.options.reading import Options
from mipkd_sr.runs.identity import Session, digest, inputs, kept_digest, trained_with
from mipkd_sr.runs.loading import complete
from mipkd_sr.runs.run import Run
from mipkd_sr.runtime.files import read_json
from mipkd_sr.studies.plan import PlannedRun, Study


@dataclass(frozen=True)
class RunFolder:
    """A planned run and its folder, which may not be there yet.

    Attributes:
        run: The run.
        name: Its name: of its folder in experiments/, and of its tests' in results/.
        root: Folder for experiments and results.
        note: What is worth saying about the name, a sentence; empty if nothing is.
    """

    run: PlannedRun
    name: str
    root: Path
    note: str = ''

    @property
    def disk(self) -> Run:
        """The run's folder, with what is in it."""
        return Run.named(self.root, self.name)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.disk.folder

    @property
    def option_file(self) -> Path:
        """The option file that it is trained with."""
        return self.folder.with_name(f'{self.name}.yml')

    @property
    def log(self) -> Path:
        """What its training and its test print."""
        return self.folder.with_name(f'{self.name}.log')

    @property
    def weights(self) -> Path:
        """The student's final weights."""
        return self.disk.student()

    @property
    def total_iter(self) -> int:
        """Steps that it is to take."""
        return self.run.variant.total_iter

    def is_finished(self) -> bool:
        """Whether it has taken all its steps."""
        return self.disk.is_finished(self.total_iter)


@dataclass(frozen=True)
class TestFolder:
    """The test at the end of a run.

    Attributes:
        name: Name of its folder in results/.
        options: Its options, as ``mipkd-test`` takes them.
        folder: Its results' folder.
        weights: What is tested.
    """

    name: str
    options: dict[str, Any]
    folder: Path
    weights: Path

    @property
    def option_file(self) -> Path:
        """The option file that it is made with."""
        return self.folder.with_name(f'{self.name}.yml')

    @cached_property
    def digest(self) -> str:
        """What it measures, of whatever weights; see ``mipkd_sr.runs.identity``."""
        path = {**self.options['path'], 'pretrain_network_g': ''}
        return digest(self.options | {'path': path}, self.folder.parents[1])

    def images(self) -> dict[str, dict[str, dict[str, float]]]:
        """For each test set, each image's metrics; empty if it has not been made since the run ended."""
        results = self.folder / 'results.json'
        if not (
            results.is_file() and self.weights.is_file() and results.stat().st_mtime >= self.weights.stat().st_mtime
        ):
            return {}
        rows = read_json(results, {})
        return next(iter(rows.values()))['images'] if rows else {}


def locate(study: Study, runs: Sequence[PlannedRun]) -> list[RunFolder]:
    """Find each run's folder.

    A run that has finished is found under whatever name it has, by what its kept options compute. One that has not is
    resumed under its own name. Where that name is another run's, such as one of a recipe that has been changed
    since, the run is given another; nothing is overwritten.
    """
    known: dict[Path, str] = {}
    found = {folder.name: trained_with(Run(folder)) for folder in _folders(study.root / 'experiments')}
    run_folders = []
    for run in runs:
        wanted = Session(0, run.digest, inputs(run.options(run.name), study.root, known), '')
        whole = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
        own = [run.name, f'{run.name.removesuffix(f"_{run.digest[:8]}")}_{run.digest[:8]}', f'{run.name}_{whole[:8]}']
        same = [name for name, session in found.items() if session is not None and session.is_like(wanted)]
        finished = [name for name in same if RunFolder(run, name, study.root).is_finished()]
        note = ''
        if finished:
            chosen = next((name for name in own if name in finished), finished[-1])
            note = f'{run.name} is there already, as {chosen}.' if chosen not in own else ''
        else:
            chosen = next(name for name in own if name in same or name not in found)
            if chosen != run.name and run.name in found:
                note = (
                    f'{run.name} was trained with other options, weights, images or code than it would be now, and is '
                    f'kept; the run is {chosen}.'
                )
        run_folders.append(RunFolder(run, chosen, study.root, note))
    return run_folders


def _folders(parent: Path) -> list[Path]:
    return sorted(folder for folder in parent.iterdir() if folder.is_dir()) if parent.is_dir() else []


def options_of_test(test: Mapping[str, Any], trained: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """The options that test a run's student.

    Args:
        test: Options for testing, without networks.
        trained: The run's options: its network, and the packages that this may be in.
        weights: The student's checkpoint.
    """
    opt = deepcopy(dict(test)) | {'network_g': deepcopy(trained['network_g'])}
    opt['path'] = {**opt.get('path', {}), 'pretrain_network_g': weights}
    if imports := [*(opt.get('import') or ()), *(trained.get('import') or ())]:
        opt['import'] = list(dict.fromkeys(imports))
    return opt


def locate_test(study: Study, run_folder: RunFolder) -> TestFolder | None:
    """The test of a run; None if the study has none."""
    if study.test is None:
        return None
    weights = str(run_folder.weights.relative_to(study.root))
    opt = options_of_test(study.test, run_folder.run.options(run_folder.name), weights)
    identity = digest(opt, study.root)
    results = study.root / 'results'
    name = run_folder.name
    if kept_digest(results / name, TEST) not in (None, identity):
        name = f'{name}_{identity[:8]}'
    return TestFolder(name, opt | {'name': name}, results / name, run_folder.weights)


def completed_options(run_folder: RunFolder) -> Options:
    """A run's options with all that building its model and its data sets needs."""
    opt = run_folder.run.options(run_folder.name)
    complete(opt, True, run_folder.root)
    return Options(opt, run_folder.option_file)
