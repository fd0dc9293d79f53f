"""What the runs of a study have measured so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.evaluate import Rows
from mipkd_sr.runs.identity import Session, history
from mipkd_sr.runs.validation_record import VALIDATIONS
from mipkd_sr.runtime.files import fits, read_json
from mipkd_sr.studies.job import Job, are_images

RESULT = {
    **dict.fromkeys(('variant', 'run', 'digest', 'test_digest'), str),
    **dict.fromkeys(('seed', 'total_iter'), int),
    **dict.fromkeys(('seconds_per_step', 'multiply_adds_per_step'), (float, None)),
    **{'finished': bool, 'validations': VALIDATIONS, 'code': [str], 'tests': dict, 'inputs': {str: str}},
}
"""The form of a result in a page's results.json."""


@dataclass(frozen=True)
class Result:
    """What one run has measured."""

    variant: str  # name of its variant
    seed: int
    run: str  # name of its folder in experiments/
    digest: str  # what it computes
    finished: bool  # whether it has taken all its steps
    total_iter: int  # steps that it is to take
    validations: list[dict[str, Any]] = field(default_factory=list)  # iter, dataset, and each metric's mean, in order
    seconds_per_step: float | None = None  # as measured before the study, else in its last session; None if not known
    multiply_adds_per_step: float | None = None  # what a step needs; None if that was not counted
    code: list[str] = field(default_factory=list)  # versions of the code that trained it, as far as they are known
    tests: dict[str, Rows] = field(default_factory=dict)  # each image's metrics, by test set; empty before the end
    test_digest: str = ''  # what the test computes; empty where there is none
    inputs: dict[str, str] = field(default_factory=dict)  # known digests of what it read besides its options

    def steps(self) -> int:
        """Steps at its last validation."""
        return self.validations[-1]['iter'] if self.validations else 0

    def value_at(self, step: int | None, dataset: str, metric: str) -> float | None:
        """A metric's mean on a validation set at a step (None: the last); None if it was not measured there."""
        return dict(self.curve(dataset, metric)).get(self.steps() if step is None else step)

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

    def is_of(self, wanted: Session) -> bool:
        """Whether a run of ``wanted`` would measure the same. Times of files are ignored, as they differ between
        machines."""
        own, now = (
            {key: text.partition('/')[0] for key, text in some.items()} for some in (self.inputs, wanted.inputs)
        )
        return self.digest == wanted.digest and not Session(0, self.digest, own, '').changed_inputs(now)


def read_results(file: Path) -> list[Result]:
    """The results that a page was written from; what cannot be read is left out."""
    results = []
    entries = read_json(file, [])
    for entry in entries if isinstance(entries, list) else ():
        try:
            result = Result(**entry)
        except TypeError:
            continue
        if fits(asdict(result), RESULT) and are_images(result.tests) and (result.validations or result.tests):
            results.append(result)
    return results


def is_kept(job: Job, kept: Sequence[Result]) -> bool:
    """Whether ``kept`` has all that a run and its test would measure."""
    result = _measured_earlier(job, kept)
    return result is not None and result.finished and (job.test is None or bool(result.tests))


def result_of(job: Job, kept: Sequence[Result]) -> Result | None:
    """What a run has measured, by its folder or else by ``kept``, an earlier page's results; None if it has not begun.

    Those of the page are for runs whose folder is gone or has fewer steps.
    """
    found = [result for result in (_measured(job), _measured_earlier(job, kept)) if result is not None]
    return max(found, key=lambda one: (one.steps(), bool(one.tests)), default=None)  # of equals what is in the folder


def _measured(job: Job) -> Result | None:
    """What a run's folder has; None if it has measured nothing yet, or was trained with something else."""
    sessions, validations = history(job.run), job.run.validations()
    if not job.given and not (validations and all(one.is_like(job.wanted) for one in sessions)):
        return None
    finished = job.is_trained()
    tests = job.test_images() if finished else {}
    if job.given and not tests:
        return None
    return Result(
        **_names(job),
        digest=job.digest,
        finished=finished,
        validations=validations,
        seconds_per_step=job.run.seconds_per_step(),
        code=list(dict.fromkeys(one.code for one in sessions if one.code)),
        tests=tests,
        test_digest=job.test_digest if tests else '',
        inputs=sessions[-1].inputs if sessions else {},
    )


def _measured_earlier(job: Job, kept: Sequence[Result]) -> Result | None:
    """What ``kept`` has of a run and its test, under the study's present names; None if nothing."""
    of_run = [result for result in kept if result.is_of(job.wanted)]
    result = max(of_run, key=lambda one: one.test_digest == job.test_digest, default=None)
    if result is None:
        return None
    if result.test_digest != job.test_digest:
        result = replace(result, tests={}, test_digest='')
    return replace(result, **_names(job))


def _names(job: Job) -> dict[str, Any]:
    """What the study calls a run now."""
    names = {'variant': job.variant, 'seed': job.options['manual_seed'], 'run': job.run.name}
    return names | {'total_iter': job.total_iter}


def of_variant(results: Sequence[Result], variant: str) -> list[Result]:
    """The results of one variant."""
    return [result for result in results if result.variant == variant]


def datasets_and_metrics(results: Sequence[Result]) -> dict[str, list[str]]:
    """The validation sets, in their order, and the metrics of each."""
    found: dict[str, list[str]] = {}
    for result in results:
        for entry in result.validations:
            metrics = found.setdefault(entry['dataset'], [])
            metrics += [name for name in entry if name not in ('iter', 'dataset', *metrics)]
    return found


def test_sets(results: Sequence[Result]) -> dict[str, list[str]]:
    """The test sets that have been measured, and the metrics of each."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, images in result.tests.items():
            found.setdefault(name, list(next(iter(images.values()), {})))
    return found
