"""Running what a study still lacks: trainings and tests, each in a process of its own, on the devices given."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from mipkd_sr.runs.identity import trained_with
from mipkd_sr.runtime.errors import BusyError
from mipkd_sr.studies.estimate import threads_a_run
from mipkd_sr.studies.job import Job
from mipkd_sr.studies.study_progress import StudyProgress

POLL_SECONDS = 0.2
RETRY_SECONDS = 30.0
"""Seconds between two looks at a teacher that another process trains."""


@dataclass
class _Active:
    """A job that is under way, in a process, on a device."""

    job: Job
    device: str
    stages: deque[str]
    process: subprocess.Popen[bytes]


class Executor:
    """Runs jobs, a few at a time, teachers before what needs them: one on each of ``devices``, see ``Pipeline``.

    SIGINT and SIGTERM are passed on: running trainings save and stop. Other processes, on this machine or on others
    that share the folder, may run the same jobs. A run's lock decides who trains it. What a run was trained with is
    checked when it begins and when it ends. Each process has a session of its own, so that a Ctrl-C in the terminal
    reaches it once, from here.

    ``progress`` is told several times a second which jobs are under way, and when one has ended. ``on_end`` is called
    after that.

    Attributes:
        failed: For each job that failed, a sentence.
        elsewhere: Whether other processes are at some of the runs.
        stopped_by: The signal that stopped them; 0 if none did.
    """

    def __init__(
        self, jobs: Sequence[Job], devices: Sequence[str], progress: StudyProgress, on_end: Callable[[], object]
    ) -> None:
        self.waiting = list(jobs)
        self.free = deque(devices)
        self.threads = threads_a_run(len(devices))
        self.active: list[_Active] = []
        self.not_before: dict[Job, float] = {}
        self.progress, self.on_end = progress, on_end
        self.failed: list[str] = []
        self.elsewhere = False
        self.stopped_by = 0

    def run(self) -> None:
        """Do everything; other jobs go on where one fails."""
        usual = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.active or (self.waiting and not self.stopped_by):
                while self.free and not self.stopped_by and (job := self._next()):
                    self._begin(job)
                self._look_after()
                self.progress.look([active.job for active in self.active])
                time.sleep(POLL_SECONDS)
        finally:
            for active in self.active:  # an error of our own must leave no process behind
                active.process.terminate()
            for number, handler in usual.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        for active in self.active:
            active.process.send_signal(number)

    def _next(self) -> Job | None:
        """The first job whose teacher is there; those whose teacher has failed are given up."""
        ahead = [*self.waiting, *(active.job for active in self.active)]
        for job in list(self.waiting):
            if self.not_before.get(job, 0) > time.monotonic() or job.teacher in ahead or job.twin in ahead:
                continue
            self.waiting.remove(job)
            if job.teacher is None or job.teacher.is_trained():
                return job
            self._end(job, failure=f'{job.run.name}: its teacher, {job.teacher.run.name}, has not been trained.')
        return None

    def _begin(self, job: Job) -> None:
        """Start a job, after another look at its folder, which may have changed since the plan."""
        job.locate({job.run.name: trained_with(job.run)} if job.run.folder.exists() else {})
        if stages := deque(job.stages()):
            device = self.free.popleft()
            self.active.append(_Active(job, device, stages, self._start(job, stages[0], device)))
        else:
            self._end(job)

    def _start(self, job: Job, stage: str, device: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {'PYTHONWARNINGS': 'ignore'}
        environment.setdefault('OMP_NUM_THREADS', str(self.threads))
        if device:
            environment['CUDA_VISIBLE_DEVICES'] = device
        command = [sys.executable, '-m', f'mipkd_sr.{stage}', *job.command(stage)]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open('ab') as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _look_after(self) -> None:
        """Go on with the next stage, or the next job, where a process has ended."""
        for active in list(self.active):
            code = active.process.poll()
            if code is None:
                continue
            job, stage = active.job, active.stages.popleft()
            sentence = _what_went_wrong(job, stage, code)
            if not sentence and active.stages and not self.stopped_by:
                active.process = self._start(job, active.stages[0], active.device)
                continue
            self.active.remove(active)
            self.free.append(active.device)
            if self.stopped_by and (code != 0 or active.stages):
                continue
            if code == BusyError.exit_code and any(job in (other.teacher, other.twin) for other in self.waiting):
                self.waiting.insert(0, job)
                self.not_before[job] = time.monotonic() + RETRY_SECONDS
            elif code == BusyError.exit_code:
                self.elsewhere = True
                self._end(job, f'elsewhere: another process is at {job.run.name}')
            else:
                self._end(job, failure=sentence)

    def _end(self, job: Job, said: str = '', failure: str = '') -> None:
        if failure:
            self.failed.append(failure)
            said = f'FAILED: {failure}'
        self.progress.end(job, said)
        self.on_end()


def _what_went_wrong(job: Job, stage: str, code: int) -> str:
    """A sentence for a stage that failed; nothing for one that did not."""
    what = 'its training' if stage == 'train' else 'its test'
    if code:
        lines = job.log.read_text(encoding='utf-8', errors='replace').splitlines() if job.log.is_file() else []
        said = next((line.removeprefix('error: ') for line in reversed(lines) if line.startswith('error: ')), '')
        return f'{job.run.name}: {what} failed with exit code {code}: {said or f"see {job.log}."}'
    session = trained_with(job.run) if stage == 'train' else job.wanted
    if session is None or not session.is_like(job.wanted):
        return f'{job.run.name} was trained with other options, weights, images or code than planned; run this again.'
    return ''
