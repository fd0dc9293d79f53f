"""A study file's runs on this machine."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from basicsr.utils import get_time_str

from mipkd_sr.evaluation.results import markdown_table
from mipkd_sr.runs.identity import Session
from mipkd_sr.runtime.files import read_json
from mipkd_sr.studies.collect import Result
from mipkd_sr.studies.estimate import Estimate, estimates, threads_a_run
from mipkd_sr.studies.job import Job, trained_in
from mipkd_sr.studies.page import csv_text, draw_curves, page_text
from mipkd_sr.studies.pipeline import Pipeline
from mipkd_sr.studies.study_file import planned_jobs, read_study, study_root
from mipkd_sr.studies.study_progress import hours

FILES = ('report.md', 'results.json', 'table.csv', 'curves.png', 'curves.pdf')
"""The files that are written to a study's folder."""


class Study(Pipeline):
    """The runs of a study file; see ``Pipeline``.

    Args:
        file: The study file.
        root: Folder for experiments, results and relative paths; None for the study's own, see ``study_root``.
    """

    def __init__(self, file: Path, root: Path | None = None) -> None:
        self.study = read_study(file, root)
        own = self.study
        imports = [Path(name) if os.sep in name else name for name in own.imports]
        command: list[str | Path] = ['mipkd', 'compare', own.file]
        command += ['--root', own.root] if own.root != study_root(own.file) else []
        command += ['--import', *imports] if imports else []
        jobs, found, known = planned_jobs(own), trained_in(own.root), dict[Path, str]()
        for job in jobs:
            job.locate(found, known)
        super().__init__(own.root, own.folder, command, jobs)

    def pages(self, results: Mapping[Job, Result]) -> dict[str, str]:
        """See ``Pipeline.pages``; the curves are drawn, too."""
        own, words = list(results.values()), self.words(self.root)
        of_runs = [shlex.join([*words, '--run', job.name]) for job in results]
        if own:
            draw_curves(self.study, own)
        page = {'report.md': page_text(self.study, len(self.jobs), own, shlex.join(words), of_runs)}
        return {'table.csv': csv_text(own)} | page if own else page

    def estimates(self, measure: bool = False) -> dict[str, Estimate]:
        """See ``Pipeline.estimates``."""
        threads = threads_a_run(len(self.devices)) if measure else None
        return estimates(self.jobs, self.folder / 'plan.json', threads)

    def before_writing(self) -> None:
        """Move the earlier page into a folder of its own if it has results that the new one lacks."""
        entries, results = read_json(self.results_file, None), self.results()
        earlier = [Session(0, result.digest, result.inputs, '') for result in self.kept]
        whole = isinstance(entries, list) and len(entries) == len(self.kept)
        if not self.results_file.exists() or (
            whole and all(any(result.is_of(one) for result in results.values()) for one in earlier)
        ):
            return
        folder = self.folder / f'earlier_{get_time_str()}'
        folder.mkdir()
        for name in FILES:
            if (self.folder / name).exists():
                (self.folder / name).rename(folder / name)
        print(f'{folder}: what was here of runs that the study has no longer.')
        self.write()  # results that still count must not be only in that folder

    def to_be_done(self, todo: Sequence[Job]) -> str:
        """See ``Pipeline.to_be_done``: a line a variant, with its hours. Measures a few steps first."""
        if self.chosen:
            return super().to_be_done(todo)
        print(f'measuring a few steps of {len(self.study.variants)} variants', flush=True)
        known = self.estimates(measure=True)
        seconds = {job: known[job.variant].seconds(job, job.steps_to_do()) for job in todo}
        body = []
        for name, variant in self.study.variants.items():
            own = [time for job, time in seconds.items() if job.variant == name]
            per_step = [f'{known[name].seconds_per_step:.3f}', f'{known[name].multiply_adds_per_step:.2e}']
            steps = f'{variant.options["train"]["total_iter"]:,}'
            body.append([name, steps, *per_step, str(len(own)), f'{sum(own) / 3600:.2f}'])
        table = markdown_table(['variant', 'steps', 's a step', 'multiply-adds a step', 'runs to do', 'hours'], body)
        total = max(sum(seconds.values()) / len(self.devices), *seconds.values())
        return (
            f'{table}\nTo be done: {len(todo)} runs, about {hours(total)} here, {len(self.devices)} at a time '
            '(validations included, reading of images and tests not).'
        )
