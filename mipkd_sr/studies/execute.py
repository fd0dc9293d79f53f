"""Running what a study still lacks: trainings and tests, each a process, on the devices there are."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from mipkd_sr.options.reading import dump_options
from mipkd_sr.runtime.files import atomic_write
from mipkd_sr.studies.collect import Result, is_kept
from mipkd_sr.studies.folders import RunFolder, TestFolder

POLL_SECONDS = 0.2
LOG_TAIL = 65536
"""Bytes at the end of a log in which the last step is looked for."""
STEP = re.compile(rb'iter ([\d,]+)/[\d,]+, lr')
"""The step in a line of a training's log; see ``mipkd_sr.training.progress``."""


@dataclass
class Job:
    """What is still to be done for one run.

    Attributes:
        run_folder: The run and its folder.
        test: Its test; None if none is to be made.
        train: Whether it has to be trained, or trained on.
    """

    run_folder: RunFolder
    test: TestFolder | None
    train: bool

    def steps_done(self) -> int:
        """Steps taken so far, as its log and its validations tell; a step or more behind."""
        if not self.train:
            return self.run_folder.total_iter
        validations = self.run_folder.disk.validations()
        return max(validations[-1]['iter'] if validations else 0, _last_logged_step(self.run_folder.log))


@dataclass
class Outcome:
    """How the jobs ended.

    Attributes:
        failed: Names of the runs that failed.
        stopped_by: The signal that stopped them; 0 if none did.
    """

    failed: list[str] = field(default_factory=list)
    stopped_by: int = 0


def jobs_of(
    run_folders: Sequence[tuple[RunFolder, TestFolder | None]], kept: Mapping[str, Result] | None = None
) -> list[Job]:
    """What is still to be done for the runs of a study, given each with its test.

    Args:
        run_folders: The runs, each with its test.
        kept: What was measured earlier, by what the runs compute; it is not measured again.
    """
    jobs = []
    for run_folder, test in run_folders:
        if is_kept(run_folder, test, kept or {}):
            continue
        train = not run_folder.is_finished()
        needed = test if test is not None and (train or not test.images()) else None
        if train or needed:
            jobs.append(Job(run_folder, needed, train))
    return jobs


def write_option_file(opt: dict[str, Any], file: Path) -> None:
    """Write options where a command can be given them.

    Raises:
        OSError: If that cannot be done.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as part:
        part.write_text(dump_options(opt), encoding='utf-8')


def training_command(run_folder: RunFolder) -> list[str]:
    """The arguments of ``mipkd-train`` for a run: trains it, or goes on with it."""
    return ['-opt', str(run_folder.option_file), '--root', str(run_folder.root), '--auto_resume', '--unchanged']


def testing_command(run_folder: RunFolder, test: TestFolder) -> list[str]:
    """The arguments of ``mipkd-test`` for the test at the end of a run."""
    return ['-opt', str(test.option_file), '--root', str(run_folder.root)]


@dataclass
class _Active:
    """A job that is under way, in a process, on a device."""

    job: Job
    device: str
    stages: deque[str]
    process: subprocess.Popen[bytes]


class Executor:
    """Runs jobs, a few at a time. SIGINT and SIGTERM are passed on: the trainings under way save and stop.

    Each process has a session of its own, so that a Ctrl-C in the terminal reaches it once, from here.

    Args:
        jobs: What is to be done.
        at_a_time: Jobs at a time, where no devices are given.
        devices: GPUs, a job at a time on each.
        on_progress: Called several times a second.
        on_end: Called when a job has ended, with the job and a sentence if it has failed.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        at_a_time: int,
        devices: Sequence[str],
        on_progress: Callable[[], None],
        on_end: Callable[[Job, str | None], None],
    ) -> None:
        self.waiting = deque(jobs)
        self.free = deque(devices or [''] * at_a_time)
        self.threads = max(1, (os.cpu_count() or 1) // len(self.free))
        self.active: list[_Active] = []
        self.on_progress = on_progress
        self.on_end = on_end
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do everything; other jobs go on where one fails."""
        usual = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.active or (self.waiting and not self.outcome.stopped_by):
                while self.waiting and self.free and not self.outcome.stopped_by:
                    self._begin(self.waiting.popleft(), self.free.popleft())
                self._look_after()
                self.on_progress()
                time.sleep(POLL_SECONDS)
        finally:
            for active in self.active:  # an error of our own must leave no process behind
                active.process.terminate()
            for number, handler in usual.items():
                signal.signal(number, handler)
        return self.outcome

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.outcome.stopped_by = number
        for active in self.active:
            active.process.send_signal(number)

    def _begin(self, job: Job, device: str) -> None:
        stages = deque([*(['train'] if job.train else []), *(['test'] if job.test else [])])
        self.active.append(_Active(job, device, stages, self._start(job, stages[0], device)))

    def _start(self, job: Job, stage: str, device: str) -> subprocess.Popen[bytes]:
        run_folder = job.run_folder
        if stage == 'train':
            write_option_file(run_folder.run.options(run_folder.name), run_folder.option_file)
            command = ['-m', 'mipkd_sr.train', *training_command(run_folder)]
        else:
            assert job.test is not None
            write_option_file(job.test.options, job.test.option_file)
            command = ['-m', 'mipkd_sr.test', *testing_command(run_folder, job.test)]
        environment = os.environ | {'PYTHONWARNINGS': 'ignore'}
        environment.setdefault('OMP_NUM_THREADS', str(self.threads))
        if device:
            environment['CUDA_VISIBLE_DEVICES'] = device
        run_folder.log.parent.mkdir(parents=True, exist_ok=True)
        with run_folder.log.open('ab') as log:
            return subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def _look_after(self) -> None:
        """Go on with the next stage, or the next job, where a process has ended."""
        for active in list(self.active):
            code = active.process.poll()
            if code is None:
                continue
            stage = active.stages.popleft()
            if code == 0 and active.stages and not self.outcome.stopped_by:
                active.process = self._start(active.job, active.stages[0], active.device)
                continue
            self.active.remove(active)
            self.free.append(active.device)
            if self.outcome.stopped_by and (code != 0 or active.stages):
                continue
            sentence = _why_failed(active.job.run_folder, stage, code) if code else None
            if sentence:
                self.outcome.failed.append(active.job.run_folder.name)
            self.on_end(active.job, sentence)


def _why_failed(run_folder: RunFolder, stage: str, code: int) -> str:
    what = 'its training' if stage == 'train' else 'its test'
    lines = _tail(run_folder.log).decode(errors='replace').splitlines()
    said = next((line.removeprefix('error: ') for line in reversed(lines) if line.startswith('error: ')), '')
    return f'{run_folder.name}: {what} failed with exit code {code}: {said or f"see {run_folder.log}."}'


def _tail(file: Path) -> bytes:
    try:
        with file.open('rb') as stream:
            stream.seek(max(0, file.stat().st_size - LOG_TAIL))
            return stream.read()
    except OSError:
        return b''


def _last_logged_step(log: Path) -> int:
    found = STEP.findall(_tail(log))
    return int(found[-1].replace(b',', b'')) if found else 0
