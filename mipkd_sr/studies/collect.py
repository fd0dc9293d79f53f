"""What the runs of a study have measured so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.evaluate import Rows
from mipkd_sr.runs.identity import code_versions
from mipkd_sr.runtime.files import read_json
from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.folders import RunFolder, TestFolder

PER_STEP = ('seconds_per_step', 'multiply_adds_per_step')
"""What a result and an estimate both tell; an estimate's is of this machine, or of an idle one."""


@dataclass(frozen=True)
class Result:
    """What one run has measured.

    Attributes:
        variant: Name of its variant.
        seed: Its seed.
        run: Name of its folder in experiments/.
        digest: What it computes.
        finished: Whether it has taken all its steps.
        total_iter: Steps that it is to take.
        validations: ``iter``, ``dataset`` and each metric's mean, in order.
        seconds_per_step: As measured before the study, else as its last session took; None if neither is there.
        multiply_adds_per_step: What a step needs; None if that was not counted.
        code: Versions of the code that trained it, as far as they are known.
        tests: For each test set, each image's metrics; empty before the end.
        test_digest: What the test computes; empty where there is none.
    """

    variant: str
    seed: int
    run: str
    digest: str
    finished: bool
    total_iter: int
    validations: list[dict[str, Any]] = field(default_factory=list)
    seconds_per_step: float | None = None
    multiply_adds_per_step: float | None = None
    code: list[str] = field(default_factory=list)
    tests: dict[str, Rows] = field(default_factory=dict)
    test_digest: str = ''

    def steps(self) -> int:
        """Steps at its last validation."""
        return self.validations[-1]['iter']

    def value_at(self, step: int | None, dataset: str, metric: str) -> float | None:
        """A metric's mean on a validation set at a step (None: the last); None if it was not measured there."""
        step = self.steps() if step is None else step
        for entry in self.validations:
            if entry['iter'] == step and entry['dataset'] == dataset:
                return entry.get(metric)
        return None

    def curve(self, dataset: str, metric: str) -> list[tuple[int, float]]:
        """A metric's mean on a validation set over the steps."""
        return [
            (entry['iter'], entry[metric])
            for entry in self.validations
            if entry['dataset'] == dataset and metric in entry
        ]

    def test_values(self, test_set: str, metric: str) -> dict[str, float]:
        """Each image's value of a metric in a test set."""
        return {name: row[metric] for name, row in self.tests.get(test_set, {}).items() if metric in row}


def read_results(file: Path) -> dict[str, Result]:
    """The results that a page was written from, by what their runs compute; what cannot be read is left out.

    Args:
        file: The page's ``results.json``, as ``as_plain`` gives it.
    """
    results: dict[str, Result] = {}
    entries = read_json(file, [])
    for entry in entries if isinstance(entries, list) else ():
        try:
            result = Result(**entry)
            if _is_whole(result):
                results[result.digest] = result
        except (TypeError, LookupError, AttributeError):
            continue
    return results


def _is_whole(result: Result) -> bool:
    """Whether a result that was read from a file has what pages are made of; other types raise, or are not."""
    numbers: list[Any] = [number for number in (getattr(result, name) for name in PER_STEP) if number is not None]
    texts: list[Any] = [result.digest, result.test_digest, *result.code]
    for entry in result.validations:
        texts.append(entry['dataset'])
        numbers += [value for name, value in entry.items() if name != 'dataset']
    for images in result.tests.values():
        numbers += [value for row in images.values() for value in row.values()]
    return (
        result.steps() > 0
        and all(len({tuple(row) for row in images.values()}) == 1 for images in result.tests.values())
        and isinstance(result.finished, bool)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int | float) for number in numbers)
    )


def is_kept(run_folder: RunFolder, test: TestFolder | None, kept: Mapping[str, Result]) -> bool:
    """Whether ``kept`` has all that a run and its test would measure."""
    result = kept.get(run_folder.run.digest)
    return result is not None and result.finished and (test is None or result.test_digest == test.digest)


def collect(
    run_folders: Sequence[tuple[RunFolder, TestFolder | None]],
    estimates: Mapping[str, Estimate],
    kept: Mapping[str, Result],
) -> list[Result]:
    """Read what the runs have measured; those that have not begun are left out.

    Args:
        run_folders: The runs, each with its test.
        estimates: What a step of each variant takes.
        kept: Results of an earlier page, for runs whose folder is not there or has not come as far.
    """
    results = []
    for run_folder, test in run_folders:
        found = [_measured(run_folder, test), _measured_earlier(run_folder, test, kept)]
        there = [result for result in found if result is not None]
        if not there:
            continue
        result = max(there, key=_progress)  # of equals what is in the folder
        estimate = estimates.get(result.variant)
        if estimate is not None:
            result = replace(result, **{name: getattr(estimate, name) for name in PER_STEP})
        results.append(result)
    return results


def _progress(result: Result) -> tuple[int, bool]:
    return result.steps(), bool(result.tests)


def _measured(run_folder: RunFolder, test: TestFolder | None) -> Result | None:
    """What is in a run's folder; None if it has not validated yet."""
    validations = run_folder.disk.validations()
    if not validations:
        return None
    finished = run_folder.is_finished()
    tests = test.images() if test is not None and finished else {}
    return Result(
        run_folder.run.variant.name,
        run_folder.run.seed,
        run_folder.name,
        run_folder.run.digest,
        finished,
        run_folder.total_iter,
        validations,
        run_folder.disk.seconds_per_step(),
        code=code_versions(run_folder.disk),
        tests=tests,
        test_digest=test.digest if test is not None and tests else '',
    )


def _measured_earlier(run_folder: RunFolder, test: TestFolder | None, kept: Mapping[str, Result]) -> Result | None:
    """What ``kept`` has of a run, as the study names it now, and of its test; None if it has nothing."""
    run = run_folder.run
    result = kept.get(run.digest)
    if result is None:
        return None
    if test is None or result.test_digest != test.digest:
        result = replace(result, tests={}, test_digest='')
    return replace(
        result, variant=run.variant.name, seed=run.seed, run=run_folder.name, total_iter=run_folder.total_iter
    )


def as_plain(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Results as JSON holds them."""
    return [asdict(result) for result in results]


def of_variant(results: Sequence[Result], variant: str) -> list[Result]:
    """The results of one variant."""
    return [result for result in results if result.variant == variant]


def by_seed(results: Sequence[Result], step: int | None, dataset: str, metric: str) -> dict[int, float]:
    """For each seed, a metric's mean on a validation set at a step (None: the last), where it was measured."""
    values = {result.seed: result.value_at(step, dataset, metric) for result in results}
    return {seed: value for seed, value in values.items() if value is not None}


def datasets_and_metrics(results: Sequence[Result]) -> dict[str, list[str]]:
    """The validation sets, in their order, and the metrics of each."""
    found: dict[str, list[str]] = {}
    for result in results:
        for entry in result.validations:
            metrics = found.setdefault(entry['dataset'], [])
            metrics += [name for name in entry if name not in ('iter', 'dataset', *metrics)]
    return found
