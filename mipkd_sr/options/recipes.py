"""What comes with the package besides its code: recipes (``options/`` of a checkout) and trained networks.

A recipe's name is its path under ``options/`` without the ending; ``train/`` and ``test/`` may be left out:
``mipkd/edsr_x4``, ``demo/kd``, ``benchmarks_x2``.
"""

import difflib
import os
from pathlib import Path

from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import LOCK

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = (_PACKAGE / 'recipes').is_dir()

RECIPES = _PACKAGE / 'recipes' if _IN_WHEEL else _PACKAGE.parent / 'options'
"""The folder of the recipes. Nothing is ever written there."""
TABLES = 'tables'
"""The folder of the papers' tables among them."""
DEMO_TEACHER = Path('experiments', 'pretrained_models', 'demo_teacher_x2.pth')
"""The demo's teacher in recipes: a file under a run's root, or else the one that comes with the package."""
SHIPPED_NETWORKS = _PACKAGE / 'pretrained_models' if _IN_WHEEL else _PACKAGE.parent / DEMO_TEACHER.parent
"""The folder of the trained networks: the demo's teacher, and two students for each scale."""
STUDENT_RECIPE = 'students/reparam'
"""The recipe by which the shipped students were trained."""
STUDENT_SCALES = (2, 3, 4)
STUDENT_SIZES = {'fast': 16, 'good': 32}
"""The shipped students' channels."""


def recipe_names() -> list[str]:
    """The names of the recipes; what others extend (``_base/run``), and the papers' tables, are none."""
    files = sorted(file.relative_to(RECIPES) for file in RECIPES.rglob('*.yml'))
    return [
        file.with_suffix('').as_posix().removeprefix('train/')
        for file in files
        if not any(part.startswith('_') for part in file.parts) and file.parts[0] != TABLES
    ]


def recipe_file(name: str | os.PathLike[str]) -> Path | None:
    """The file of the recipe ``name``, or None if there is no such recipe."""
    candidates = (RECIPES / kind / f'{str(name).removesuffix(".yml")}.yml' for kind in ('', 'train', 'test'))
    return next((file for file in candidates if RECIPES in file.parents and file.is_file()), None)


def require_recipe(name: str | os.PathLike[str]) -> Path:
    """The file of the recipe ``name``.

    Raises:
        OptionError: If there is no such recipe.
    """
    if file := recipe_file(name):
        return file
    raise OptionError('', f'{name}: there is no such recipe; {_advice(name)}')


def first_line(name: str) -> str:
    """What a recipe's first line, a comment, says."""
    with require_recipe(name).open(encoding='utf-8') as lines:
        line = lines.readline().strip()
    return line.removeprefix('#').strip() if line.startswith('#') else ''


def find_option_file(name: str | os.PathLike[str]) -> Path:
    """The option file that a user names: a file, or else a recipe.

    Raises:
        OptionError: If there is neither.
    """
    if Path(name).is_file():
        return Path(name).absolute()
    if file := recipe_file(name):
        return file
    raise OptionError('', f'{name}: there is no such file and no such recipe; {_advice(name)}')


def _advice(name: str | os.PathLike[str]) -> str:
    near = difflib.get_close_matches(str(name), recipe_names(), 1, 0.7)
    return f"did you mean the recipe '{near[0]}'?" if near else '`mipkd recipes` lists the recipes.'


def find_root(name: str | os.PathLike[str]) -> Path:
    """The folder that experiments, results and every relative path in an option file belong to.

    For an option file under a folder ``options``, it is the folder that holds ``options``. For another option file it
    is the file's own folder. For the one that a run keeps in its folder, it is that run's root. So it does not matter
    from where, or how, a run is started. For a recipe that is given by its name, or that is inside an installed
    package, it is the current folder.

    Args:
        name: The option file, as the user names it.
    """
    file = Path(name).absolute()
    if (not file.is_file() and recipe_file(name)) or (_IN_WHEEL and RECIPES in file.resolve().parents):
        return Path.cwd()
    if file.parent.parent.name in ('experiments', 'results') and (file.parent / LOCK).exists():
        return file.parents[2]
    for folder in file.parents:
        if folder.name == 'options':
            return folder.parent
    return file.parent
