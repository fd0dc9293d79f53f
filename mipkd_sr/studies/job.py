"""One run that a study needs, and its test: what they compute, where they lie, and what is left to do."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from mipkd_sr.options.defaults import spell_out
from mipkd_sr.options.keys import TEST
from mipkd_sr.options.reading import Options, dump_options
from mipkd_sr.runs.identity import Session, digest, history, inputs, kept_digest, trained_with
from mipkd_sr.runs.run import Run
from mipkd_sr.runs.run_options import complete, path_keys
from mipkd_sr.runtime.checkpoint import file_digest
from mipkd_sr.runtime.files import atomic_write, fits, read_json, unused

Found = Mapping[str, Session | None]
"""What each folder in experiments/ was trained with, by its name; see ``mipkd_sr.runs.identity.trained_with``."""


def are_images(value: Any) -> bool:
    """Whether a value that was read from a file has a test's form: each image of a set has the same metrics."""
    return fits(value, {str: {str: {str: float}}}) and all(
        len({tuple(row) for row in images.values()}) == 1 for images in value.values()
    )


@dataclass(eq=False)
class Job:
    """A run and its test."""

    variant: str  # the row that it belongs to
    name: str  # the run's name, unless another run has it
    options: dict[str, Any]  # the checked options that train it, ``manual_seed`` among them
    root: Path  # folder for experiments, results and relative paths
    test_options: dict[str, Any] | None = None  # checked, without networks; None if it is not to be tested
    teacher: Optional['Job'] = None  # the job that trains its teacher; None if its teacher is there
    twin: Optional['Job'] = None  # an earlier job of the same run; None if there is none
    given: Path | None = None  # existing weights, which are tested as they are; None if it is to be trained
    note: str = ''  # a sentence about its folder for the user; empty if there is nothing to say
    run: Run = field(init=False)  # where it lies
    wanted: Session = field(init=False)  # what it has to be trained with
    test: dict[str, Any] | None = field(init=False)  # options of its test, as ``mipkd test`` takes them

    @property
    def digest(self) -> str:
        """What it computes, without its inputs; see ``mipkd_sr.runs.identity``."""
        return self.wanted.digest

    @property
    def total_iter(self) -> int:
        """Steps that it is to take."""
        return 0 if self.given else self.options['train']['total_iter']

    @property
    def option_file(self) -> Path:
        """The option file that it is trained with."""
        return self.run.folder.with_name(f'{self.run.name}.yml')

    @property
    def log(self) -> Path:
        """What its training and its test print."""
        return self.run.folder.with_name(f'{self.run.name}.log')

    @property
    def weights(self) -> Path:
        """The student at its end."""
        return self.given or self.run.student()

    def training_options(self) -> dict[str, Any]:
        """The options for ``mipkd train``, with all defaults written out, as these may change."""
        return spell_out(deepcopy(self.options)) | {'name': self.run.name}

    def completed_options(self) -> Options:
        """The same with all that building its model and its data sets needs."""
        opt = self.training_options()
        complete(opt, True, self.root)
        return Options(opt, self.option_file)

    def locate(self, found: Found, known: dict[Path, str] | None = None) -> None:
        """Find its folder among the existing ones, by what they contain.

        A finished run is found under any name. An unfinished run is resumed under its own name. If another run has that
        name (such as one of a recipe that has changed since), this one gets another. Nothing is overwritten. A folder
        of its name that is not in ``found`` is read; for ``known`` see ``inputs``.
        """
        self.note = ''
        if self.given:
            self.wanted = Session(0, file_digest(self.given)[:16], {}, '')
            self.run = Run.named(self.root, f'{self.given.stem}_{self.digest[:8]}')
        else:
            if self.teacher is not None:
                self.options['path']['pretrain_network_t'] = str(self.teacher.weights.relative_to(self.root))
            opt = self.options | {'name': self.name}
            self.wanted = Session(0, digest(opt, self.root), inputs(opt, self.root, known), '')
            self.run = Run.named(self.root, self._own_name(found))
        self.test = self._test()

    def _own_name(self, found: Found) -> str:
        short, whole = self.digest[:8], hashlib.sha256(json.dumps(self.wanted).encode()).hexdigest()[:8]
        own = [self.name, self.name if self.name.endswith(short) else f'{self.name}_{short}', f'{self.name}_{whole}']
        looked_at = [Run.named(self.root, name) for name in own if name not in found]
        here = {**found, **{run.name: trained_with(run) for run in looked_at if run.folder.exists()}}
        same = [name for name, session in here.items() if session is not None and session.is_like(self.wanted)]
        if finished := [name for name in same if Run.named(self.root, name).is_finished(self.total_iter)]:
            chosen = next((name for name in own if name in finished), finished[-1])
            self.note = '' if chosen in own else f'{self.name} is there already, as {chosen}.'
            return chosen
        last = unused(Run.named(self.root, own[-1]).folder).name
        chosen = next((name for name in own if name in same or name not in here or self._is_empty(name)), last)
        if chosen != self.name:
            self.note = (
                f'{self.name} was trained with other options, weights, images or code than it would be now, and is '
                f'kept; the run is {chosen}.'
            )
        return chosen

    def _is_empty(self, name: str) -> bool:
        """Whether a folder has nothing of a run in it yet, as when a run is about to begin."""
        run = Run.named(self.root, name)
        return run.has_come_to_nothing() and not history(run)

    def _test(self) -> dict[str, Any] | None:
        if self.test_options is None:
            return None
        opt = deepcopy(self.test_options) | {'network_g': deepcopy(self.training_options()['network_g'])}
        weights = self.weights
        weights = weights.relative_to(self.root) if weights.is_relative_to(self.root) else weights
        opt['path'] = {**opt.get('path', {}), 'pretrain_network_g': str(weights)}
        if imports := [*(opt.get('import') or ()), *(self.options.get('import') or ())]:
            opt['import'] = list(dict.fromkeys(imports))
        identity = digest(opt, self.root)
        taken = kept_digest(self.root / 'results' / self.run.name, TEST) not in (None, identity)
        name = f'{self.run.name}_{identity[:8]}' if taken else self.run.name
        return opt | {'name': name}

    @property
    def test_folder(self) -> Path:
        """The results of its test; it must have one."""
        assert self.test is not None
        return self.root / 'results' / self.test['name']

    @cached_property
    def test_digest(self) -> str:
        """What its test measures, of whatever weights; see ``mipkd_sr.runs.identity``. Empty without a test."""
        opt = self.test and self.test | {'path': {**self.test['path'], 'pretrain_network_g': ''}}
        return digest(opt, self.root) if opt else ''

    def test_images(self) -> dict[str, dict[str, dict[str, float]]]:
        """For each test set, each image's metrics; empty if there was no test since weights or images changed."""
        if self.test is None or not (file := self.test_folder / 'results.json').is_file():
            return {}
        folders = [self.root / holder[key] for _, holder, key in path_keys({**self.test, 'path': {}})]
        read = [self.weights, *folders, *(image for folder in folders for image in folder.glob('*'))]
        if any(one.stat().st_mtime > file.stat().st_mtime for one in read if one.exists()):
            return {}
        rows = read_json(file, None)
        images = next(iter(rows.values()))['images'] if rows and fits(rows, {str: {'images': dict}}) else {}
        return images if are_images(images) else {}

    def is_trained(self) -> bool:
        """Whether its weights of the last step exist; those of another run under its name do not count."""
        if self.given:
            return True
        session = trained_with(self.run)
        return session is not None and session.is_like(self.wanted) and self.run.is_finished(self.total_iter)

    def steps_to_do(self) -> int:
        """Steps that are left if it is resumed now."""
        states = self.run.numbered_states()
        return 0 if self.is_trained() else self.total_iter - (int(states[0].stem) if states else 0)

    def stages(self) -> list[str]:
        """What is still to be done: ``train``, ``test``."""
        train = not self.is_trained()
        test = self.test is not None and (train or not self.test_images())
        return ['train'] * train + ['test'] * test

    def command(self, stage: str) -> list[str]:
        """The arguments of the program for a stage. Its option file is written."""
        opt, file = self.training_options(), self.option_file
        if stage == 'test' and self.test:
            opt, file = self.test, self.test_folder.with_name(f'{self.test_folder.name}.yml')
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_text(dump_options(opt), encoding='utf-8')
        resume = ['--auto_resume', '--unchanged'] if stage == 'train' else []
        return ['-opt', str(file), '--root', str(self.root), *resume]


def trained_in(root: Path) -> Found:
    """What each folder in experiments/ of a root was trained with."""
    experiments = root / 'experiments'
    folders = sorted(experiments.iterdir()) if experiments.is_dir() else []
    return {folder.name: trained_with(Run(folder)) for folder in folders if folder.is_dir()}
