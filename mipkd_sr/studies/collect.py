"""What the runs of a study have measured so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mipkd_sr.evaluation.evaluate import Rows
from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.folders import RunFolder, TestFolder, read_json


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

    def value_at(self, step: int | None, dataset: str, metric: str) -> float | None:
        """A metric's mean on a validation set at a step (None: the last); None if it was not measured there."""
        step = self.validations[-1]['iter'] if step is None else step
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


def collect(
    run_folders: Sequence[tuple[RunFolder, TestFolder | None]], estimates: Mapping[str, Estimate] | None = None
) -> list[Result]:
    """Read what the runs have measured; those that have not begun are left out.

    Args:
        run_folders: The runs, each with its test.
        estimates: What a step of each variant takes.
    """
    results = []
    for run_folder, test in run_folders:
        validations = run_folder.validations()
        if not validations:
            continue
        estimate = (estimates or {}).get(run_folder.run.variant.name)
        timing = read_json(run_folder.folder / 'timing.json', {})
        finished = run_folder.is_finished()
        results.append(
            Result(
                run_folder.run.variant.name,
                run_folder.run.seed,
                run_folder.name,
                run_folder.run.digest,
                finished,
                run_folder.total_iter,
                validations,
                estimate.seconds_per_step if estimate else timing.get('seconds_per_step'),
                estimate.multiply_adds_per_step if estimate else None,
                run_folder.code_versions(),
                test.images() if test is not None and finished else {},
            )
        )
    return results


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
