"""A user's own packages: imported before options are checked, so that their classes are registered.

``import`` in an option file, and ``--import``, name packages or modules: ``my_sr``, ``my_sr.archs``. Where Python
itself does not find one (it is not installed), it is looked for in the current folder, in the option file's and in
every folder above that.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mipkd_sr.compat  # noqa: F401  (what a user's package imports of BasicSR needs its repairs)
from mipkd_sr.options.registries import find_anywhere, module_of, types_in
from mipkd_sr.runtime.errors import OptionError, shown, traced

NOT_USERS = ('basicsr', 'mipkd_sr', 'torch', 'torchvision', '__main__', 'builtins')
"""Packages that need no ``import``, and programs, which cannot be imported."""
_asked_for: list[str] = []
_added: list[str] = []
"""Folders that were added to ``sys.path`` here."""


def import_asked_for(names: Iterable[str]) -> None:
    """Import what ``--import`` names. Every option file that is read from now on gets it in its ``import``."""
    _asked_for.extend(import_packages(names, Path.cwd() / 'options.yml', '--import'))


def import_for(entries: object, file: Path) -> list[str]:
    """Import what the option file ``file`` names as ``import``, and what ``--import`` named; returns names as below."""
    names = [entries] if isinstance(entries, str) else entries or []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise OptionError('import', f'must be the name of a package of yours, or a list of them, not {shown(entries)}.')
    return list(dict.fromkeys([*import_packages(names, file, 'import'), *_asked_for]))


def import_packages(names: Iterable[str], file: Path, key: str) -> list[str]:
    """Import packages or modules, by names which a folder may stand before; ``key`` is what the user gave, for
    messages.

    They are looked for in the folder of the option file ``file`` and those above. Returns names that are found from
    anywhere: what is not installed has its folder, ``/home/me/project/my_sr``.
    """
    return [_import(name, file, key) for name in names]


def add_used(opt: dict[str, Any]) -> None:
    """Add to ``import`` the modules of those of a user's classes that the options name.

    A program of the user's may have imported them. The options that a run keeps then say where its classes are, and
    other commands find them.
    """
    known = {Path(entry).name.split('.')[0] for entry in opt.get('import') or ()}
    for module in dict.fromkeys(module_of(find_anywhere(name)) for name in types_in(opt)):
        top = module.split('.')[0]
        if module and top not in (*known, *NOT_USERS) and (file := getattr(sys.modules[module], '__file__', None)):
            depth = module.count('.') + (Path(file).stem == '__init__')
            home = Path(file).absolute().parents[depth]
            installed = 'site-packages' in home.parts
            opt['import'] = [*(opt.get('import') or ()), module if installed else str(home / module)]


def _import(entry: str, file: Path, key: str) -> str:
    folder, _, name = entry.removesuffix('.py').rpartition(os.sep)
    if not all(part.isidentifier() for part in name.split('.')):
        raise OptionError(key, f"{shown(entry)} is no name of a package; write it as in Python's import.")
    top, found = name.split('.')[0], name
    home = _home_of(top, [file.absolute().parent / folder] if folder else map(Path, _added))
    if home is None and importlib.util.find_spec(top) is None:
        home = _home_of(top, [Path.cwd(), *file.absolute().parents])
        if home is None:
            raise OptionError(
                key,
                f'there is no package {shown(name)}: it is neither installed nor in the current folder, the option '
                "file's or one above; give the right name, or install it (pip install -e .).",
            )
    if home is not None:
        found = str(home / name)
        if str(home) not in _added:
            _added.append(str(home))
            sys.path.append(str(home))
            importlib.invalidate_caches()
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise OptionError(key, f'{name} cannot be imported: {traced(error)}.') from error
    return found


def _home_of(package: str, folders: Iterable[Path]) -> Path | None:
    """The first of ``folders`` that holds a package or module."""
    for folder in folders:
        if (folder / package / '__init__.py').is_file() or (folder / f'{package}.py').is_file():
            return folder.absolute()
    return None
