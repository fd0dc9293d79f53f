"""How far a study is, with the time left: a bar over all its runs, or a line each minute where there is no terminal."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from tqdm import tqdm

from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.job import Job

LOOK_SECONDS = 1.0
"""Seconds between two looks at how far the runs are."""
LINE_SECONDS = 60.0
"""Seconds between two lines, where there is no terminal."""


def hours(seconds: float) -> str:
    """A duration for people: ``2.4 hours``, ``12 minutes``, ``40 seconds``."""
    if seconds >= 5400:
        return f'{seconds / 3600:.1f} hours'
    return f'{seconds / 60:.0f} minutes' if seconds >= 90 else f'{seconds:.0f} seconds'


class StudyProgress:
    """The progress of jobs, ``at_a_time`` at a time; a step whose ``estimates`` are not known counts as 1."""

    def __init__(self, jobs: Sequence[Job], estimates: Mapping[str, Estimate], at_a_time: int) -> None:
        self.estimates = estimates
        self.at_a_time = at_a_time
        self.left = {job: job.steps_to_do() for job in jobs}
        self.total = self._work()
        self.start = self.looked = self.said = time.monotonic()
        self.ended = 0
        # disable=None: no bar where there is no terminal
        self.bar = tqdm(total=100, disable=None, bar_format='{percentage:3.0f}%|{bar}| {desc}', leave=False)

    def _work(self) -> float:
        """What is left, in seconds where there are estimates."""
        known = self.estimates
        return sum(known[job.variant].seconds(job, n) if job.variant in known else n for job, n in self.left.items())

    def look(self, active: Sequence[Job]) -> None:
        """Move the bar, once a second at most; or say a line, once a minute."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        for job in active:
            self.left[job] = min(self.left[job], job.total_iter - job.run.steps_taken())
        state = self._state()
        if not self.bar.disable:
            self.bar.n = 100 * (1 - self._work() / self.total) if self.total else 100
            self.bar.set_description_str(state, refresh=True)
        elif now - self.said >= LINE_SECONDS:
            self.said = now
            print(f'{state}; {"; ".join(map(self._where, active)) or "waiting for another process"}', flush=True)

    def _where(self, job: Job) -> str:
        if not self.left[job]:
            return f'{job.run.name} is being tested'
        return f'{job.run.name} at step {job.total_iter - self.left[job]:,} of {job.total_iter:,}'

    def _state(self) -> str:
        """With the time left: from the speed so far, or, before there is one, from the estimates."""
        left, time_left = self._work(), 'time left not known yet'
        if (done := self.total - left) > 0 or self.estimates:
            pace = (time.monotonic() - self.start) / done if done > 0 else 1 / self.at_a_time
            time_left = f'about {timedelta(seconds=round(pace * left))} left'
        return f'{self.ended} of {len(self.left)} runs, {time_left}'

    def end(self, job: Job, said: str) -> None:
        """Say that a job has ended, or what was ``said`` of it if it was not done here."""
        self.ended += 1
        self.left[job] = 0
        self.said = time.monotonic()
        tqdm.write(f'{said or f"done: {job.run.name}"} ({self._state()})')

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
