"""From a study file to its runs: what each computes, and what it is called. ``mipkd compare --help`` shows one."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipkd_sr.options.checking import check, check_form
from mipkd_sr.options.forms import Key, MapOf, Section
from mipkd_sr.options.importing import import_for
from mipkd_sr.options.keys import TEST, TRAIN
from mipkd_sr.options.reading import Options, force_options, read_options
from mipkd_sr.runs.identity import digest
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.strict_yaml import read_yaml
from mipkd_sr.studies.job import Job

VARIANT = Section(
    {
        'recipe': Key('str', "Option file, from the study file's folder, or a recipe's name; the study's if ~."),
        'force': Key('list', 'Changes to the recipe, entries as of --force_yml.', (), items='str'),
        'steps': Key('float', "Factor on the recipe's steps and on the schedule of its learning rate.", 1.0, above=0),
        'seeds': Key('list', "Those of the study's seeds that it is trained with; all if ~.", None, items='int'),
    }
)
STUDY = Section(
    {
        'import': TRAIN.keys['import'],
        'recipe': Key('str', "Option file for training, from the study file's folder, or a recipe's name."),
        'seeds': Key('list', 'Seeds; every variant is trained with each.', (0,), items='int', minimum=0),
        'baseline': Key('str', 'Variant that the others are compared with; the first if ~.'),
        'report_at': Key('list', 'Steps that the table shows, besides the last.', (), items='int', minimum=1),
        'test': Key('str', 'Option file for testing; its test sets are measured once, at the end of each run.'),
        'variants': MapOf(VARIANT),
    }
)
LONGEST_SLUG = 80
"""Characters of a variant's name in its runs' names."""


@dataclass(frozen=True)
class Variant:
    """One row of a study: its seeds, and its runs' checked options with the recipe's ``name`` and ``manual_seed``."""

    options: dict[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class StudyFile:
    """A study file, read."""

    file: Path
    root: Path  # folder for experiments, results and relative paths
    folder: Path  # where its results are written
    variants: dict[str, Variant]  # by name, in the file's order
    seeds: tuple[int, ...]
    baseline: str  # name of the variant that the others are compared with
    report_at: tuple[int, ...]  # steps that the table shows
    test: dict[str, Any] | None  # the checked options of the test at the end of each run; None if there is none
    imports: tuple[str, ...] = ()  # packages that the study file, or --import, names; every run imports them


def study_root(file: Path) -> Path:
    """The folder that holds the study's ``experiments`` (or ``options``) folder; else the study file's own."""
    for folder in file.absolute().parents:
        if folder.name in ('experiments', 'options'):
            return folder.parent
    return file.absolute().parent


def read_study(file: Path, root: Path | None = None) -> StudyFile:
    """Read a study file and the option files that it names, and check them. Nothing is written.

    ``root`` is the folder for experiments, results and relative paths; ``study_root``'s if None.
    """
    file = file.absolute()
    root = root.absolute() if root else study_root(file)
    try:
        opt = read_yaml(file)
    except ValueError as error:
        raise OptionError('', f'{error}; give a study file.') from None
    try:
        imports = opt['import'] = import_for(opt.get('import'), file)
        check_form(opt, STUDY)
        if not opt['seeds'] or len(set(opt['seeds'])) < len(opt['seeds']):
            raise OptionError('seeds', 'must name at least one seed, and each once.')
        variants = {name: _read_variant(name, own, opt, file) for name, own in opt['variants'].items()}
        report_at = tuple(sorted(set(opt['report_at'])))
        for name, variant in variants.items():
            _check_validation(name, variant.options, report_at)
        baseline = opt['baseline'] or next(iter(variants))
        if baseline not in variants:
            raise OptionError('baseline', f"'{baseline}' is none of the variants; there are: {', '.join(variants)}.")
        _refuse_equals(variants, root)
        test = _read_test(opt['test'], file) if opt['test'] else None
    except OptionError as error:
        raise OptionError('', f'{file}: {error}') from None
    folder = file.parent if file.stem == 'study' else file.parent / file.stem  # several may lie in one folder
    return StudyFile(file, root, folder, variants, tuple(opt['seeds']), baseline, report_at, test, tuple(imports))


def _read_variant(name: str, own: Mapping[str, Any], study: Mapping[str, Any], file: Path) -> Variant:
    key, recipe = f'variants:{name}', own['recipe'] or study['recipe']
    if not recipe:
        raise OptionError(key, 'has no recipe; name one here, or one for the whole study.')
    try:
        options = _read_beside(file, recipe)
        with options.explaining():
            force_options(options, own['force'])
            if study['import']:
                options.data['import'] = list(dict.fromkeys([*study['import'], *options.data.get('import', ())]))
            check(options.data, TRAIN)
            scale_steps(options.data, own['steps'])
    except OptionError as error:
        raise OptionError(key, str(error)) from None
    seeds = tuple(study['seeds'] if own['seeds'] is None else own['seeds'])
    if not seeds or not set(seeds) <= set(study['seeds']):
        raise OptionError(f'{key}:seeds', f"must be some of the study's, {study['seeds']}, or ~ for all of them.")
    return Variant(options.data, seeds)


def _read_beside(file: Path, name: str) -> Options:
    """The option file that the study ``file`` names: one in its folder, or a shipped recipe."""
    own = file.parent / name
    return read_options(own if own.is_file() else name)


def scale_steps(opt: dict[str, Any], factor: float) -> None:
    """Give a run ``factor`` times its steps, in place, and stretch its learning rate's schedule by the same factor."""
    if factor == 1:
        return
    train, scheduler = opt['train'], opt['train']['scheduler']
    train['total_iter'] = max(1, round(factor * train['total_iter']))
    train['warmup_iter'] = round(factor * train['warmup_iter']) if train['warmup_iter'] > 0 else train['warmup_iter']
    for name in ('milestones', 'periods', 'restarts'):
        if name in scheduler:
            scheduler[name] = [round(factor * step) for step in scheduler[name]]


def _check_validation(name: str, opt: Mapping[str, Any], report_at: tuple[int, ...]) -> None:
    if not (opt.get('val') or {}).get('metrics') or not any(phase != 'train' for phase in opt['datasets']):
        key = f'variants:{name}'
        raise OptionError(key, 'has a recipe without val:metrics or without a validation set; a study needs both.')
    for step in report_at:
        if step % opt['val']['val_freq'] and step < opt['train']['total_iter']:
            raise OptionError('report_at', f"{step} is no step at which '{name}' validates; see val:val_freq.")


def _refuse_equals(variants: Mapping[str, Variant], root: Path) -> None:
    seen: dict[str, str] = {}
    for name, variant in variants.items():
        other = seen.setdefault(digest(variant.options | {'manual_seed': 0}, root), name)
        if other != name:
            raise OptionError(f'variants:{name}', f"computes the same as '{other}'; change or remove one.")


def _read_test(name: str, file: Path) -> dict[str, Any]:
    """The options of a test, without its networks."""
    try:
        options = _read_beside(file, name)
        opt = checked_test(options)
    except OptionError as error:
        raise OptionError('test', str(error)) from None
    if not opt['val'].get('metrics'):
        raise OptionError('test', f'{options.file} names no val:metrics; a study needs them.')
    return opt


def checked_test(options: Options) -> dict[str, Any]:
    """Checked options for testing, without networks and figures."""
    of_networks = ('networks', 'network_g', 'published', 'figure', 'teacher')
    opt = options.data = {name: value for name, value in options.data.items() if name not in of_networks}
    with options.explaining():
        check(opt, TEST)
    return {name: value for name, value in opt.items() if name not in of_networks} | {'teacher': None}


def slug(text: str) -> str:
    """A text as part of a folder's name."""
    return re.sub(r'\W+', '-', text).strip('-')[:LONGEST_SLUG].rstrip('-') or 'unnamed'


def planned_jobs(study: StudyFile) -> list[Job]:
    """The runs of a study, in the order of training: seed by seed, so that all variants can be compared early."""
    jobs, names = [], []
    for seed in study.seeds:
        for variant, own in ((name, own) for name, own in study.variants.items() if seed in own.seeds):
            names.append(f'{slug(study.folder.name)}_{slug(variant)}_seed{seed}')
            options = deepcopy(own.options) | {'manual_seed': seed}
            jobs.append(Job(variant, names[-1], options, study.root, study.test))
    lower = [name.lower() for name in names]  # some file systems ignore upper and lower case
    for job in jobs:
        if lower.count(job.name.lower()) > 1:
            job.name += f'_{digest(job.options, study.root)[:8]}'
    return jobs
