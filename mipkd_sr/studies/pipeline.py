"""The one way that every study and every table goes: plan, execute, report."""

import json
import os
import shlex
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

from mipkd_sr.runs.identity import code_version
from mipkd_sr.runs.run_options import complete, missing_paths
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.runtime.files import atomic_write
from mipkd_sr.studies.collect import Result, is_kept, read_results, result_of
from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.execute import Executor
from mipkd_sr.studies.job import Job
from mipkd_sr.studies.study_progress import StudyProgress

PARTIAL = ' **These are partial results**'
PER_STEP = ('seconds_per_step', 'multiply_adds_per_step')
"""Fields that a result and an estimate share; the estimate's were measured on this machine, or an idle one."""


class Pipeline(ABC):
    """Runs to train, to test and to report on one page.

    Args:
        root: Folder for experiments, results and relative paths.
        folder: Where the page is written.
        command: The command that makes all of it; files and folders as paths.
        jobs: The runs, located, teachers before what needs them.

    Attributes:
        chosen: Names of the runs to do now; all if empty.
        test_only: Whether untrained runs are left alone.
        devices: GPUs, one run at a time on each; on CPUs one ``''`` for each run at a time.
        results_file: The page's numbers: what its runs have measured.
        kept: The results that the page was last written from.
    """

    def __init__(self, root: Path, folder: Path, command: Sequence[str | Path], jobs: Sequence[Job]) -> None:
        self.root = root
        self.folder = folder
        self.command = command
        self.jobs = list(jobs)
        self.chosen: Sequence[str] = ()
        self.test_only = False
        self.devices = ['']
        self.results_file = folder / 'results.json'
        self.kept = read_results(self.results_file)

    def choose(self, names: Sequence[str]) -> None:
        """Do the runs of these names alone."""
        self.chosen = names
        if unknown := set(names) - {job.name for job in self.jobs}:
            raise OptionError('--run', f'there is no run {min(unknown)} in it; --commands names those that there are.')

    @abstractmethod
    def pages(self, results: Mapping[Job, Result]) -> dict[str, str]:
        """The text of each of the page's files, by name, the page itself last."""

    def estimates(self, measure: bool = False) -> dict[str, Estimate]:
        """What a step of each variant takes: of those that are known, or, with ``measure``, of all."""
        return {}

    def before_writing(self) -> None:  # noqa: B027
        """What a subclass does before the page is written anew."""

    def others(self, results: Mapping[Job, Result]) -> list[Result]:
        """What its numbers keep besides ``results``."""
        return []

    def to_be_done(self, todo: Sequence[Job]) -> str:
        """What is to be done, for people."""
        names = dict.fromkeys(f'  {job.run.name}{"" if "train" in job.stages() else " (its test)"}' for job in todo)
        return '\n'.join([f'To be done: {len(names)} runs', *names])

    def todo(self) -> list[Job]:
        """The runs to do now: those asked for, and the teachers that they need."""
        wanted = [job for job in self.jobs if not self.chosen or job.name in self.chosen]
        wanted = [job for job in wanted if job.stages() and not is_kept(job, self.kept)]
        if self.test_only:
            return [job for job in wanted if job.is_trained()]
        needed = [
            job.teacher for job in wanted if job.teacher and not job.is_trained() and not job.teacher.is_trained()
        ]
        return [job for job in self.jobs if job in wanted or job in needed]

    def results(self) -> dict[Job, Result]:
        """What the runs have measured so far."""
        estimates, found = self.estimates(), {}
        for job in self.jobs:
            if result := result_of(job, self.kept):
                known = estimates.get(job.variant)
                found[job] = replace(result, **{name: getattr(known, name) for name in PER_STEP}) if known else result
        return found

    def words(self, home: Path | None = None) -> list[str]:
        """The words of the command, for any folder, or for ``home``."""
        return [
            Path(os.path.relpath(word, home)).as_posix() if home and isinstance(word, Path) else str(word)
            for word in self.command
        ]

    def commands(self) -> list[str]:
        """A command for each run to do. They may run anywhere, in any order, several at a time."""
        words = self.words()
        words += [] if '--root' in words else ['--root', str(self.root)]
        return [shlex.join([*words, '--run', name]) for name in dict.fromkeys(job.name for job in self.todo())]

    def check_files(self, todo: Sequence[Job]) -> None:
        """Check that the data and weights of the runs to do exist."""
        for job in todo:
            missing = missing_files(job)
            if job.test:
                opt = deepcopy(job.test) | {'path': {}}  # its weights are still to come
                complete(opt, False, self.root)
                missing += missing_paths(opt)
            if missing:
                raise missing[0]

    def plan(self) -> str:
        """What is done and what is to do, as text."""
        todo = self.todo()
        lines = [f'{len(self.jobs)} runs in {self.root / "experiments"}']
        lines += dict.fromkeys(f'note: {job.note}' for job in self.jobs if job.note)
        if gone := sum(not job.is_trained() and is_kept(job, self.kept) for job in self.jobs):
            lines.append(
                f'note: {gone} runs have no folder there and are not trained again: {self.results_file} has what they '
                'measured; move it away to train them.'
            )
        here = code_version()
        if others := sorted({code for result in self.results().values() for code in result.code if code != here}):
            lines.append(
                f'note: some runs are of other versions of the code ({", ".join(others)}; this is {here}) and are kept '
                'as they are.'
            )
        self.check_files(todo)
        return '\n'.join([*lines, self.to_be_done(todo) if todo else 'Everything has been done.'])

    def write(self) -> Path:
        """Write the page and what belongs to it; returns the page. What cannot be written stays as it was."""
        results = self.results()
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = json.dumps([asdict(result) for result in [*results.values(), *self.others(results)]], indent=1) + '\n'
        name = ''
        for name, text in {self.results_file.name: numbers, **self.pages(results)}.items():
            with atomic_write(self.folder / name) as part:
                part.write_text(text, encoding='utf-8', newline='')
        return self.folder / name

    def execute(self) -> int:
        """Do what is to be done, and write the page after each run. Where runs were chosen, no page is written.

        Returns 0, or 128 and the signal's number if it was stopped.

        Raises:
            RunError: If runs have failed; the others have been finished first.
        """
        todo = self.todo()
        self.check_files(todo)
        if not self.chosen:
            self.before_writing()
        measured = self.estimates(not self.chosen and any(not job.is_trained() for job in todo))
        with closing(StudyProgress(todo, measured, len(self.devices))) as progress:
            executor = Executor(todo, self.devices, progress, (lambda: None) if self.chosen else self.write)
            executor.run()
        if not self.chosen:
            print(f'written: {self.write()}', flush=True)
        if executor.stopped_by:
            name = signal.Signals(executor.stopped_by).name
            print(f'stopped by {name}; run this again to go on', file=sys.stderr, flush=True)
            return 128 + executor.stopped_by
        if executor.elsewhere:
            print(
                'What other processes are at is not on the page; when they have ended, --report writes it.', flush=True
            )
        if executor.failed:
            first = executor.failed[0].rstrip('.')
            count = f'{len(executor.failed)} of {len(todo)} runs failed, the first: {first}'
            raise RunError(f'{count}; mend what is said of each above, and run this again to go on.')
        return 0


def missing_files(job: Job) -> list[OptionError]:
    """The files that a run reads and that are absent, without weights of a teacher that is to be trained first."""
    if job.is_trained():
        return []
    to_come = str(job.teacher.weights) if job.teacher else None
    return [error for error in missing_paths(job.completed_options().data) if not to_come or to_come not in str(error)]
