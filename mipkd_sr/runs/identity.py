"""What a run computes, told apart from what it is called, where it lies and what it logs."""

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from mipkd_sr import __version__
from mipkd_sr.options.checking import check
from mipkd_sr.options.defaults import spell_out
from mipkd_sr.options.forms import Section
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.options.reading import read_options
from mipkd_sr.runs.loading import leave_out_added, path_keys
from mipkd_sr.runtime.errors import OptionError

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


def digest(opt: Mapping[str, Any], root: Path) -> str:
    """A digest of what a run with these options computes, 16 hexadecimal digits.

    Args:
        opt: Options that have been checked; paths as the user gave them, or completed.
        root: Folder that relative paths belong to.
    """
    own = spell_out(deepcopy(dict(opt)))
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
    text = json.dumps(_plain(own), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _below(path: str, root: Path) -> str:
    """A path without the part that differs between machines."""
    whole = os.path.normpath(root / Path(path).expanduser())
    return Path(os.path.relpath(whole, root)).as_posix() if Path(whole).is_relative_to(root) else whole


def _plain(value: Any) -> Any:
    """``value`` with what is the same in an option file written the same: 1 and 1.0, a list and a tuple."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def kept_options(folder: Path, form: Section = TRAIN) -> tuple[dict[str, Any], Path] | None:
    """The options that a run or a test keeps in its folder, as the user could have given them, and its root.

    Args:
        folder: The run's folder under experiments/, or the test's under results/.
        form: ``TRAIN`` or ``TEST``.

    Returns:
        None if there are none, or only those of a version with other keys.
    """
    for file in sorted(folder.glob('*.yml'), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            opt = read_options(file).data
            root = Path(opt['root_path'])
            leave_out_added(opt)
            check(opt, form)
            spell_out(opt)
        except (OptionError, KeyError, AttributeError, TypeError):
            continue
        return opt, root
    return None


def kept_digest(folder: Path, form: Section = TRAIN) -> str | None:
    """The digest of what the run (or, with ``TEST``, the test) in ``folder`` computes; None if it does not say."""
    kept = kept_options(folder, form)
    return None if kept is None else digest(*kept)


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
