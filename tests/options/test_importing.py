"""A user's own package, found from an option file."""

import argparse
import importlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mipkd_sr.cli import build_parser
from mipkd_sr.cli import main as mipkd
from mipkd_sr.options import importing
from mipkd_sr.options.reading import read_options
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.studies.paper_tables import read_table
from mipkd_sr.studies.study import Study
from mipkd_sr.studies.study_file import read_study
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, ROOT, experiment

NETWORK = """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class {name}(nn.Sequential):
    def __init__(self, upscale: int = 2) -> None:
        super().__init__(nn.Conv2d(3, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))
"""


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and folders that a test imports from are its own."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(importing, '_asked_for', [])
    monkeypatch.setattr(importing, '_added', [])


def make_package(folder: Path, name: str, network: str) -> None:
    package = folder / name
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(f'from {name} import net_arch\n')
    (package / 'net_arch.py').write_text(NETWORK.format(name=network))


def own_options(training_options: Any, network: str, **changes: Any) -> dict[str, Any]:
    return training_options(**changes) | {'network_g': {'type': network, 'upscale': 2}}


def test_every_command_finds_the_package_beside_the_option_file_and_from_the_copy_of_a_run(
    pairs, training_options, tmp_path
):
    project, elsewhere = tmp_path / 'project', tmp_path / 'elsewhere'
    make_package(project, 'seen_sr', 'SeenNet')
    elsewhere.mkdir()
    file = project / 'options' / 'train' / 'own.yml'
    file.parent.mkdir(parents=True)
    opt = own_options(training_options, 'SeenNet') | {'import': ['seen_sr']}
    file.write_text(yaml.safe_dump(opt))
    kept, weights = experiment(project) / 'own.yml', experiment(project) / 'models' / 'net_g_latest.pth'

    def run(*arguments: object) -> None:
        environment = ENVIRONMENT | {'PYTHONPATH': str(ROOT)}
        command = [sys.executable, '-m', 'mipkd_sr', *map(str, arguments)]
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run('train', '-opt', file)
    run('upscale', pairs / 'LR_x2' / 'wave0.png', '--out', tmp_path / 'up', '-opt', kept, '--weights', weights)
    run('export', '-opt', file, '--weights', weights, '--out', tmp_path / 'own.pth')
    tested = {
        'name': 'own',
        'import': '../../seen_sr',
        'scale': 2,
        'network_g': opt['network_g'],
        'path': {'pretrain_network_g': str(weights)},
        'datasets': {'test': opt['datasets']['val']},
        'val': {'metrics': opt['val']['metrics']},
    }
    (file.parent / 'test.yml').write_text(yaml.safe_dump(tested))
    run('test', '-opt', file.parent / 'test.yml')
    assert (tmp_path / 'up' / 'wave0.png').is_file()


def test_a_package_on_the_command_line_is_kept_with_the_run(training_options, write_options, tmp_path, monkeypatch):
    make_package(tmp_path / 'here', 'asked_sr', 'AskedNet')
    monkeypatch.chdir(tmp_path / 'here')
    file = write_options(own_options(training_options, 'AskedNet'))
    assert main(['-opt', str(file), '--import', 'asked_sr']) == 0
    kept = yaml.safe_load((experiment(tmp_path) / 'options.yml').read_text())
    assert kept['import'] == [str(tmp_path / 'here' / 'asked_sr')]


def test_what_a_program_of_the_users_has_imported_is_kept_with_the_run(
    training_options, write_options, tmp_path, monkeypatch
):
    make_package(tmp_path / 'project', 'program_sr', 'ProgramNet')
    monkeypatch.syspath_prepend(str(tmp_path / 'project'))
    importlib.import_module('program_sr')
    assert main(['-opt', str(write_options(own_options(training_options, 'ProgramNet')))]) == 0
    kept = yaml.safe_load((experiment(tmp_path) / 'options.yml').read_text())
    assert kept['import'] == [str(tmp_path / 'project' / 'program_sr.net_arch')]
    assert read_options(experiment(tmp_path) / 'options.yml').data['import'] == kept['import']


def make_study(project: Path, training_options: Any, name: str, network: str) -> None:
    """A study of a network that neither its recipe nor its test says where to find."""
    make_package(project, name, network)
    opt = own_options(training_options, network)
    test = {'name': 't', 'scale': 2, 'num_gpu': 0, 'datasets': {'test': opt['datasets']['val']}, 'val': {}}
    test['val'] = {'metrics': opt['val']['metrics']}
    texts = {'recipe': yaml.safe_dump(opt), 'test': yaml.safe_dump(test)}
    texts['study'] = 'recipe: recipe.yml\ntest: test.yml\nvariants: {own: {}}'
    for name, text in texts.items():
        (project / f'{name}.yml').write_text(text)


def test_a_package_on_the_command_line_of_a_study_goes_to_its_runs_and_their_tests(
    training_options, tmp_path, monkeypatch
):
    make_study(tmp_path, training_options, 'study_sr', 'StudyNet')
    monkeypatch.chdir(tmp_path)
    assert mipkd(['compare', 'study.yml', '--import', 'study_sr']) == 0
    assert next((tmp_path / 'results').glob('*/results.json')).is_file()
    lines = (tmp_path / 'report.md').read_text().splitlines()
    assert sum('`mipkd compare study.yml --import study_sr`' in line for line in lines) == 1
    (command,) = (shlex.split(line) for line in lines if line.startswith('mipkd '))
    shutil.rmtree(tmp_path / 'results')
    monkeypatch.setattr(importing, '_asked_for', [])
    (tmp_path / 'results.json').unlink()
    assert mipkd(command[1:]) == 0
    assert next((tmp_path / 'results').glob('*/results.json')).is_file()


def test_a_study_file_names_a_package_as_its_option_files_do(training_options, tmp_path):
    make_study(tmp_path, training_options, 'named_sr', 'NamedNet')
    file = tmp_path / 'study.yml'
    with pytest.raises(OptionError, match='Is it yours'):
        read_study(file)
    file.write_text(f'import: named_sr\n{file.read_text()}')
    (job,) = Study(file).jobs
    assert job.options['import'] == [str(tmp_path / 'named_sr')]
    assert job.test is not None
    assert job.test['import'] == [str(tmp_path / 'named_sr')]


def test_a_table_takes_packages_too(training_options, tmp_path):
    make_package(tmp_path, 'table_sr', 'TableNet')
    (tmp_path / 'base.yml').write_text(yaml.safe_dump(own_options(training_options, 'TableNet')))
    text = {'title': 'T', 'import': 'table_sr', 'scales': [2], 'bases': ['base.yml'], 'test': 'test.yml'}
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({**text, 'rows': {'a': {}}}))
    (cell,) = read_table(tmp_path / 'own.yml').cells
    assert cell.options['import'] == [str(tmp_path / 'table_sr')]


def test_the_reference_has_what_a_package_registers(tmp_path, monkeypatch, capsys):
    make_package(tmp_path, 'shown_sr', 'ShownNet')
    monkeypatch.chdir(tmp_path)
    assert mipkd(['options', '--import', 'shown_sr']) == 0
    section = capsys.readouterr().out.partition('### `ShownNet`\n')[2].partition('###')[0]
    assert '| `upscale` | int | `2` |' in section


TAKES_FILES = {'-opt', 'study', 'table'}
"""Arguments that name a file in which a class of the user's may be named."""


def test_every_command_that_reads_such_a_file_takes_packages():
    def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        nested = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        yield from (
            [parser] if not nested else (leaf for own in nested for sub in own.values() for leaf in commands(sub))
        )

    found = {
        command.prog: {*command._option_string_actions, *(a.dest for a in command._actions)}
        for command in commands(build_parser())
    }
    reading = {name for name, arguments in found.items() if arguments & TAKES_FILES}
    assert len(reading) > 8
    assert {name for name in reading if '--import' not in found[name]} == set()


def test_what_the_bases_import_is_imported_too(tmp_path):
    for name in ('one', 'two'):
        make_package(tmp_path, f'{name}_sr', f'{name.title()}Net')
    (tmp_path / 'base.yml').write_text('import: one_sr')
    (tmp_path / 'own.yml').write_text('base: base.yml\nimport: [two_sr]')
    names = read_options(tmp_path / 'own.yml').data['import']
    assert names == [str(tmp_path / 'one_sr'), str(tmp_path / 'two_sr')]
    assert {'one_sr', 'two_sr.net_arch'} <= sys.modules.keys()
    (tmp_path / 'again.yml').write_text(f'import: {names}')
    assert read_options(tmp_path / 'again.yml').data['import'] == names


def test_what_is_installed_is_kept_by_its_name(tmp_path):
    (tmp_path / 'own.yml').write_text('import: torch.nn')
    assert read_options(tmp_path / 'own.yml').data['import'] == ['torch.nn']


BAD = {
    'absent': ('import: [no_such_sr]', "own.yml: import: there is no package 'no_such_sr': .* install it"),
    'absent folder': (f'import: {os.sep}no{os.sep}no_such_sr', 'import: there is no package'),
    'no name': ('import: my-sr', "import: 'my-sr' is no name of a package"),
    'no text': ('import: [3]', 'import: must be the name of a package of yours, or a list of them'),
    'raises': ('import: broken_sr', r"import: broken_sr cannot be imported: KeyError: 'x' \(.*broken_sr.py, line 2\)"),
    'lacks': (
        'import: lacking_sr',
        "lacking_sr cannot be imported: ModuleNotFoundError: No module named 'no_such_lib'",
    ),
    'no part': ('import: torch.no_such', "import: torch.no_such cannot be imported: .*No module named 'torch.no_such'"),
}


@pytest.mark.parametrize(('text', 'message'), BAD.values(), ids=BAD)
def test_what_cannot_be_imported_is_one_sentence(text, message, tmp_path):
    (tmp_path / 'broken_sr.py').write_text("a = {}\na['x']\n")
    (tmp_path / 'lacking_sr.py').write_text('import no_such_lib\n')
    (tmp_path / 'own.yml').write_text(text)
    with pytest.raises(OptionError, match=message):
        read_options(tmp_path / 'own.yml')


def test_a_network_that_is_not_known_may_be_ones_own(training_options, write_options, capsys):
    assert main(['-opt', str(write_options(own_options(training_options, 'SomebodysNet')))]) == 2
    assert 'Is it yours? Add import: [your_package].' in capsys.readouterr().err
