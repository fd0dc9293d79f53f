"""How far a study is: a progress bar over all its runs, weighted by what their steps take, with the time left."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from tqdm import tqdm

from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.execute import Job

LOOK_SECONDS = 1.0
"""Seconds between two looks at the runs' logs."""


def hours(seconds: float) -> str:
    """A duration for people: ``2.4 hours``, ``12 minutes``, ``40 seconds``."""
    if seconds >= 5400:
        return f'{seconds / 3600:.1f} hours'
    return f'{seconds / 60:.0f} minutes' if seconds >= 90 else f'{seconds:.0f} seconds'


def expected_seconds(job: Job, estimates: Mapping[str, Estimate], steps: int) -> float:
    """Seconds that ``steps`` steps of a job's run are expected to take."""
    return estimates[job.run_folder.run.variant.name].seconds(job.run_folder, steps) if steps else 0.0


class StudyProgress:
    """The progress of the jobs of a study, on a bar where there is a terminal.

    Args:
        jobs: All that is to be done.
        estimates: What a step of each variant takes.
        at_a_time: Jobs that run at a time.
    """

    def __init__(self, jobs: Sequence[Job], estimates: Mapping[str, Estimate], at_a_time: int) -> None:
        self.jobs = list(jobs)
        self.estimates = estimates
        self.at_a_time = at_a_time
        self.done_before = {id(job): job.steps_done() for job in jobs}
        self.total = sum(self._seconds(job, job.run_folder.total_iter) for job in jobs)
        self.start = self.looked = time.monotonic()
        self.ended = 0
        # disable=None: no bar where there is no terminal; the lines at the end of each run carry the time left too
        self.bar = tqdm(total=100, disable=None, bar_format='{percentage:3.0f}%|{bar}| {desc}', leave=False)

    def _seconds(self, job: Job, steps: int) -> float:
        return expected_seconds(job, self.estimates, max(0, steps - self.done_before[id(job)]))

    def look(self) -> None:
        """Move the bar, once a second at most."""
        now = time.monotonic()
        if self.bar.disable or now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        done = self._done()
        self.bar.n = 100 * done / self.total if self.total else 100
        self.bar.set_description_str(f'{self.ended} of {len(self.jobs)} runs, {self.left(done)}', refresh=True)

    def _done(self) -> float:
        """Expected seconds of the steps taken since the start."""
        return sum(self._seconds(job, job.steps_done()) for job in self.jobs)

    def left(self, done: float) -> str:
        """The time left: from the speed so far, or, before there is one, from the plan."""
        elapsed = time.monotonic() - self.start
        pace = elapsed / done if done > 0 else 1 / self.at_a_time
        return f'about {timedelta(seconds=round(pace * (self.total - done)))} left'

    def end(self, job: Job, failure: str | None) -> None:
        """Say that a job has ended."""
        self.ended += 1
        job.train = job.train and failure is not None
        what = f'FAILED: {failure}' if failure else f'done: {job.run_folder.name}'
        tqdm.write(f'{what} ({self.ended} of {len(self.jobs)} runs, {self.left(self._done())})')

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
