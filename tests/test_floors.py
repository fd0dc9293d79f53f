"""The layout: a folder imports only what lies below it, and no file or function is too long to be read in one go."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOORS = (
    ('option_types', 'compat'),
    ('runtime', 'metrics', 'imresize'),
    ('archs', 'data'),
    ('distill', 'options', 'evaluation'),
    ('losses', 'deploy'),
    ('runs',),
    ('api',),
    ('models',),
    ('training', 'costs'),
    ('studies',),
    ('commands',),
    ('register',),
    ('train', 'test'),
    ('cli',),
)
"""From the ground up. A package imports itself and the floors below, never its own floor or one above."""
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 60

PACKAGE = ROOT / 'mipkd_sr'
FILES = sorted(PACKAGE.rglob('*.py'))
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def module_of(file: Path) -> str:
    """The dotted name of a file: ``mipkd_sr.archs.staged``; a folder's own for its ``__init__.py``."""
    return '.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


MODULES = {module_of(file): file for file in FILES}


def imported_modules(source: str) -> Iterator[str]:
    """Modules of the package that a source imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            inner = [f'{node.module}.{alias.name}' for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in inner]
        yield from (name for name in names if name.split('.')[0] == 'mipkd_sr')


def upward_imports(package: str, source: str) -> list[str]:
    """What a file of ``package`` imports and must not."""
    names = {name.split('.')[1] for name in imported_modules(source) if '.' in name} - {package}
    return sorted(name for name in names if FLOOR_OF.get(name, len(FLOORS)) >= FLOOR_OF[package])


def test_a_name_means_one_file() -> None:
    """Those of commands aside, which are the commands' names."""
    names = [file.stem for file in FILES if file.name != '__init__.py' and 'commands' not in file.parts]
    assert sorted(names) == sorted(set(names))


def test_every_folder_has_a_floor() -> None:
    found = {file.relative_to(PACKAGE).parts[0].removesuffix('.py') for file in FILES} - {'__init__', '__main__'}
    assert found == set(FLOOR_OF)


@pytest.mark.parametrize(
    'file', [file for file in FILES if file.parent != PACKAGE or file.stem in FLOOR_OF], ids=module_of
)
def test_imports_run_downwards(file: Path) -> None:
    package = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
    assert upward_imports(package, file.read_text()) == []


def test_no_module_imports_one_that_imports_it() -> None:
    graph = {name: set(imported_modules(file.read_text())) & MODULES.keys() - {name} for name, file in MODULES.items()}
    del graph['mipkd_sr']  # which every file imports first
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle in it
    assert len(order) >= len(graph)


def imports_basicsr(file: Path) -> bool:
    found = (node.module or '' for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom))
    return any(name.split('.')[0] == 'basicsr' for name in found)


@pytest.mark.parametrize('file', filter(imports_basicsr, FILES), ids=module_of)
def test_basicsr_is_repaired_before_it_is_imported(file: Path) -> None:
    """By the file or its folder: any module can be imported alone."""
    folder = file.parent / '__init__.py'
    found = [*imported_modules(file.read_text()), *(imported_modules(folder.read_text()) if folder != file else ())]
    assert {'mipkd_sr.compat', 'mipkd_sr.register'} & set(found)


@pytest.mark.parametrize(
    ('package', 'source', 'found'),
    [
        ('data', 'from mipkd_sr.models import build_model', ['models']),
        ('data', 'from mipkd_sr import archs', ['archs']),
        ('archs', 'def f():\n    import mipkd_sr.train', ['train']),
        ('losses', 'from mipkd_sr.distill.step import DistillStep', []),
    ],
)
def test_an_upward_import_is_found(package: str, source: str, found: list[str]) -> None:
    assert upward_imports(package, source) == found


@pytest.mark.parametrize('file', FILES, ids=module_of)
def test_nothing_is_too_long_to_be_read(file: Path) -> None:
    source = file.read_text()
    assert len(source.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LINES_OF_A_FUNCTION, node.name
