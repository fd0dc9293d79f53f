"""What a run computes, apart from its name, its folder and what it logs.

A run may go on with other options, another teacher or other images than it began with. So its identity is its history.
``history.json`` in its folder, and ``history`` in its training states, have an entry for each session that differs from
the one before.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mipkd_sr import __version__
from mipkd_sr.options.checking import check
from mipkd_sr.options.defaults import spell_out
from mipkd_sr.options.forms import Section
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.options.reading import read_options
from mipkd_sr.runs.run import SESSIONS, Run
from mipkd_sr.runs.run_options import leave_out_added, path_keys
from mipkd_sr.runtime.checkpoint import file_digest
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import fits

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    '': (
        'name',
        'import',
        'num_gpu',
        'logger',
        'dist_params',
        'find_unused_parameters',
        'figure',
        'published',
        'published_file',
    ),
    'path': ('ignore_resume_networks',),
    'val': ('save_img', 'suffix', 'pbar'),
}
"""Keys of the options, by section, that do not change what a run computes."""
OF_READING = (
    'scan',
    'num_worker_per_gpu',
    'pin_memory',
    'persistent_workers',
    'prefetch_mode',
    'num_prefetch_queue',
    'use_shuffle',
)
"""Keys of a data set that do not change what is read."""
COMPUTING = ('archs', 'data', 'distill', 'evaluation', 'losses', 'metrics', 'models', 'options', 'runtime', 'training')
"""Folders of the package whose code decides what a run computes."""
NOT_READ = ('resume_state', 'published_file')
"""Options that name files which do not change what a run computes. (A training state has its own history.)"""


class Session(NamedTuple):
    """What a run was trained with from some iteration on."""

    after: int  # the iteration after which it began
    digest: str  # the digest of its options, see ``digest``; empty if not known
    inputs: dict[str, str]  # what it read besides them; see ``inputs``
    code: str  # see ``code_version``; empty if it is not known

    def changed_inputs(self, now: Mapping[str, str]) -> list[str]:
        """The keys of the inputs that are known in both and differ."""
        return [key for key, value in self.inputs.items() if now.get(key, value) != value]

    def is_like(self, other: 'Session') -> bool:
        """Whether the other one computes the same, by what is known of both."""
        return bool(self.digest) and self.digest == other.digest and not self.changed_inputs(other.inputs)


def digest(opt: Mapping[str, Any], root: Path) -> str:
    """A digest of what a run with these checked options computes, 16 hexadecimal digits; their paths belong to
    ``root``.
    """
    return _digest(spell_out(deepcopy(dict(opt))), root)


def _digest(own: dict[str, Any], root: Path) -> str:
    for section, names in WITHOUT_EFFECT.items():
        holder = own.get(section, {}) if section else own
        for name in names:
            holder.pop(name, None)
    if not own.get('train', {}).get('ema_decay'):
        own.get('train', {}).pop('ema_warmup', None)
    for dataset in own['datasets'].values():
        for name in OF_READING:
            dataset.pop(name, None)
    for _, holder, name in path_keys(own):
        holder[name] = _below(holder[name], root)
    if 'resume_state' in own['path']:
        own['path']['resume_state'] = None
    text = json.dumps(_plain(own), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _below(path: str, root: Path) -> str:
    """A path without the part that differs between machines."""
    whole = os.path.normpath(root / Path(path).expanduser())
    return Path(os.path.relpath(whole, root)).as_posix() if Path(whole).is_relative_to(root) else whole


def _plain(value: Any) -> Any:
    """``value`` with equal things written alike: 1 and 1.0, a list and a tuple."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def kept_digest(folder: Path, form: Section = TRAIN) -> str | None:
    """The digest of what a run or a test computes, by the options that it keeps in its folder, of the form TRAIN or
    TEST.

    None if it keeps no options, or only those of a version with other keys.
    """
    kept = _kept_digests(folder, form)
    return kept and kept[1]


def _kept_digests(folder: Path, form: Section = TRAIN) -> tuple[str, str] | None:
    """The digests of the kept options: with the defaults that there were, and with those of further arguments."""
    for file in sorted(folder.glob('*.yml'), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            opt = read_options(file).data
            root = Path(opt['root_path'])
            leave_out_added(opt)
            check(opt, form)
            spelled = spell_out(deepcopy(opt))
        except (OptionError, KeyError, AttributeError, TypeError):
            continue
        return _digest(opt, root), _digest(spelled, root)
    return None


def inputs(opt: Mapping[str, Any], root: Path, known: dict[Path, str] | None = None) -> dict[str, str]:
    """Digests of what a run reads besides its options: files, image folders, and the source of the user's packages.

    They are by the option that names the file; absent files are left out. A folder has two with a slash between them:
    of its files' names and sizes, and of the times of their last change. ``known`` has those, by file, that were
    computed for other runs a moment ago; new ones are added.
    """
    known = {} if known is None else known
    found = {key: root / Path(holder[name]).expanduser() for key, holder, name in path_keys(dict(opt))}
    found = {key: path for key, path in found.items() if key.rpartition(':')[2] not in NOT_READ}
    for entry in opt.get('import') or ():
        package = Path(entry).name.split('.')[0]
        module = sys.modules.get(package)
        if module and module.__file__:
            source = Path(module.__file__)
            found[f'import:{package}'] = source.parent if source.stem == '__init__' else source
    for key, path in found.items():
        if path not in known and path.exists():
            known[path] = _listing(path, sources=key.startswith('import:')) if path.is_dir() else file_digest(path)[:16]
    return {key: known[path] for key, path in found.items() if path in known}


def _listing(folder: Path, sources: bool) -> str:
    """A digest of a folder's Python files (``sources``); else one of its files' names and sizes, and one of their
    times."""
    content, times = hashlib.sha256(), hashlib.sha256()
    for file in sorted(folder.rglob('*.py' if sources else '*')):
        name = file.relative_to(folder).as_posix()
        if sources:
            content.update(f'{name}\0'.encode() + file.read_bytes() + b'\0')
        elif file.is_file() and not file.name.startswith('.') and name != 'lock.mdb':  # which each reader touches
            stat = file.stat()
            content.update(f'{name}\0{stat.st_size}\0'.encode(errors='surrogateescape'))
            times.update(f'{stat.st_mtime_ns}\0'.encode())
    return content.hexdigest()[:16] + ('' if sources else f'/{times.hexdigest()[:8]}')


def session(opt: Mapping[str, Any], after: int) -> Session:
    """What a run with these completed options is trained with from an iteration on."""
    own = deepcopy(dict(opt))
    root = Path(own['root_path'])
    leave_out_added(own)
    return Session(after, digest(own, root), inputs(own, root), code_version())


def history(run: Run, state: Mapping[str, Any] | None = None) -> list[Session]:
    """What a run was trained with over all its steps, or up to one of its training states; empty if there is no such
    run.

    Arguments that the package has got since then, of which the kept options know nothing, are at their defaults.
    """
    entries = run.sessions() if state is None or 'history' not in state else state['history']
    sessions = [Session(**entry) for entry in entries] if fits(entries, SESSIONS) else []
    if sessions and all(one.code == code_version() for one in sessions):
        return sessions  # none has been added, and options take milliseconds to read
    if kept := _kept_digests(run.folder):
        then, now = kept
        sessions = [one._replace(digest=now) if one.digest == then else one for one in sessions]
        return sessions or [Session(0, now, {}, '')]
    return sessions or ([] if state is None else [Session(0, '', {}, '')])


def trained_with(run: Run) -> Session | None:
    """What a run was trained with in all its steps; None if that changed, or there is no run."""
    sessions = history(run)
    same = all(before.is_like(after) for before, after in pairwise(sessions))
    return sessions[-1] if sessions and same else None


@cache
def code_version() -> str:
    """The package's version, and a digest of the sources that decide what a run computes: ``0.1.0+1f2e3d4c``."""
    package = Path(__file__).parents[1]
    sources = [file for folder in COMPUTING for file in sorted((package / folder).rglob('*.py'))]
    sources += [package / name for name in ('compat.py', 'imresize.py')]
    total = hashlib.sha256()
    for file in sources:
        total.update(file.relative_to(package).as_posix().encode() + b'\0' + file.read_bytes() + b'\0')
    return f'{__version__}+{total.hexdigest()[:8]}'
