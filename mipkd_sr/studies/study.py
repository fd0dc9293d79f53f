"""A study and its runs on this machine: the plan, the work, the page."""

import os
import signal
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from mipkd_sr.evaluation.tables import markdown_table
from mipkd_sr.runs.identity import code_version
from mipkd_sr.runs.loading import complete, missing_paths
from mipkd_sr.runtime.errors import RunError
from mipkd_sr.studies.collect import Result, collect, is_kept, read_results
from mipkd_sr.studies.estimate import Estimate, estimates, kept_estimates
from mipkd_sr.studies.execute import Executor, Job, jobs_of
from mipkd_sr.studies.folders import completed_options, locate, locate_test
from mipkd_sr.studies.page import archive_earlier, write_page
from mipkd_sr.studies.plan import planned_runs, read_study
from mipkd_sr.studies.progress import StudyProgress, expected_seconds, hours


class StudyRuns:
    """The runs of a study file, on this machine.

    Args:
        file: The study file.
        root: Folder for experiments, results and relative paths; None for the study's own, see ``study_root``.
        at_a_time: Runs at a time, where no devices are given.
        devices: GPUs, a run at a time on each.

    Raises:
        OptionError: If the study file, or an option file that it names, is wrong.
    """

    def __init__(self, file: Path, root: Path | None = None, at_a_time: int = 1, devices: Sequence[str] = ()) -> None:
        self.study = read_study(file, root)
        self.devices = list(devices)
        self.at_a_time = len(self.devices) or at_a_time
        self.run_folders = [
            (run_folder, locate_test(self.study, run_folder))
            for run_folder in locate(self.study, planned_runs(self.study))
        ]
        self.kept = read_results(self.study.results_file)
        self.jobs = jobs_of(self.run_folders, self.kept)
        self.plan_file = self.study.folder / 'plan.json'

    def check_files(self) -> None:
        """See that the data and weights of what is to be done are there.

        Raises:
            OptionError: If something is not; it says what.
        """
        for job in self.jobs:
            if job.train and (missing := missing_paths(completed_options(job.run_folder).data)):
                raise missing[0]
            if job.test:
                opt = deepcopy(job.test.options) | {'path': {}}  # its weights are still to come
                complete(opt, False, self.study.root)
                if missing := missing_paths(opt):
                    raise missing[0]

    def leave_training(self) -> None:
        """Leave for another time what has to be trained: of finished runs the tests remain to be done."""
        self.jobs = [job for job in self.jobs if not job.train]

    def estimates(self) -> dict[str, Estimate]:
        """What a step of each variant takes here, measured where that is not known."""
        threads = max(1, (os.cpu_count() or 1) // self.at_a_time)
        return estimates([run_folder for run_folder, _ in self.run_folders], self.plan_file, threads)

    def results(self) -> list[Result]:
        """What the runs have measured so far."""
        known = kept_estimates([run_folder for run_folder, _ in self.run_folders], self.plan_file)
        return collect(self.run_folders, known, self.kept)

    def plan(self) -> str:
        """What there is, what is to be done and how long that will take, for people. Measures a few steps first."""
        lines = [f'{self.study.file}: {len(self.run_folders)} runs in {self.study.root / "experiments"}']
        lines += [f'note: {run_folder.note}' for run_folder, _ in self.run_folders if run_folder.note]
        gone = sum(
            not run_folder.is_finished() and is_kept(run_folder, test, self.kept)
            for run_folder, test in self.run_folders
        )
        if gone:
            lines.append(
                f'note: {gone} runs have no folder there and are not trained again: {self.study.results_file} has what '
                'they measured; move it away to train them.'
            )
        others = {version for result in self.results() for version in result.code if version != code_version()}
        if others:
            lines.append(
                f'note: some runs are of other versions of the code ({", ".join(sorted(others))}; this is '
                f'{code_version()}) and are kept as they are.'
            )
        self.check_files()
        if not self.jobs:
            return '\n'.join([*lines, 'Everything has been done.'])
        print(f'measuring a few steps of {len(self.study.variants)} variants', flush=True)
        estimates = self.estimates()
        seconds = [self._expected(job, estimates) for job in self.jobs]
        header, body = ['variant', 'steps', 's a step', 'multiply-adds a step', 'runs to do', 'hours'], []
        for name, variant in self.study.variants.items():
            own = [time for job, time in zip(self.jobs, seconds, strict=True) if job.run_folder.run.variant is variant]
            known = estimates[name]
            per_step = [f'{known.seconds_per_step:.3f}', f'{known.multiply_adds_per_step:.2e}']
            body.append([name, f'{variant.total_iter:,}', *per_step, str(len(own)), f'{sum(own) / 3600:.2f}'])
        lines.append(markdown_table(header, body))
        total = max(sum(seconds) / self.at_a_time, max(seconds))
        lines.append(
            f'To be done: {len(self.jobs)} runs, about {hours(total)} here, {self.at_a_time} at a time (validations '
            'included, reading of images and tests not).'
        )
        return '\n'.join(lines)

    def _expected(self, job: Job, estimates: dict[str, Estimate]) -> float:
        return expected_seconds(job, estimates, job.run_folder.total_iter - job.steps_done())

    def write_page(self) -> Path:
        """Write the study's page from what there is; returns it."""
        return write_page(self.study, self.run_folders, self.results())

    def execute(self) -> int:
        """Do what is to be done, and write the page after each run.

        Returns:
            0, or 128 and the signal's number if the study was stopped.

        Raises:
            RunError: If runs have failed; the others have been finished first.
        """
        self.check_files()
        if self.jobs and (folder := archive_earlier(self.study, self.results())):
            print(f'{folder}: what was here of runs that the study has no longer.')
            self.write_page()  # what still counts must not lie in that folder alone
        trained = any(job.train for job in self.jobs)
        progress = StudyProgress(self.jobs, self.estimates() if trained else {}, self.at_a_time)

        def on_end(job: Job, failure: str | None) -> None:
            progress.end(job, failure)
            self.write_page()

        executor = Executor(self.jobs, self.at_a_time, self.devices, progress.look, on_end)
        try:
            outcome = executor.run()
        finally:
            progress.close()
        print(f'written: {self.write_page()}', flush=True)
        if outcome.stopped_by:
            name = signal.Signals(outcome.stopped_by).name
            print(f'stopped by {name}; run this again to go on', file=sys.stderr, flush=True)
            return 128 + outcome.stopped_by
        if outcome.failed:
            names = ', '.join(outcome.failed)
            raise RunError(
                f'{len(outcome.failed)} of {len(self.jobs)} runs failed ({names}); mend what is said of each above, '
                'and run this again to go on.'
            )
        return 0
