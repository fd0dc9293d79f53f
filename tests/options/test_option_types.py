"""The types of a run's options are those by which option files are checked, and reach the type checker."""

import subprocess
import sys

import pytest

from mipkd_sr import option_types
from mipkd_sr.option_types import DatasetOptions, PathOptions, TrainingOptions, TrainOptions
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section
from mipkd_sr.options.keys import ADDED, DATASET, LOSS, METRIC, NETWORK, TEST, TRAIN, section
from mipkd_sr.runs.run_options import load_options
from tests.conftest import ROOT


def test_a_key_has_the_kind_the_choices_and_the_bounds_that_its_type_and_help_say():
    train, path = TRAIN.keys['train'].keys, TRAIN.keys['path'].keys
    assert train['total_iter'] == Key('int', 'Optimizer steps to take.', REQUIRED, minimum=1, maximum=10**9)
    assert (train['precision'].kind, train['precision'].choices) == ('str', ('fp32', 'bf16', 'fp16'))
    assert (train['tf32'].kind, train['tf32'].default) == ('bool', None)
    assert (train['second_step'].kind, train['second_step'].items) == ('list', 'str')
    assert TEST.keys['val'].keys['self_ensemble'].kind == 'any'
    assert TEST.keys['val'].keys['self_ensemble'].choices == (False, True, 'both')
    assert isinstance(path['pretrain_network_t'], OneOrNamed)
    assert path['pretrain_network_t'].entry.kind == 'str'


def test_sections_components_and_maps_are_told_apart():
    assert section(DatasetOptions) is DATASET
    assert TRAIN.keys['datasets'] == MapOf(DATASET, ('train', 'val'))
    assert TRAIN.keys['network_g'] is NETWORK
    assert TRAIN.keys['network_t'] == OneOrNamed(TEST.keys['network_g'])
    assert isinstance(TEST.keys['network_g'], Component)
    assert TEST.keys['network_g'].optional
    assert TRAIN.keys['val'].optional
    assert TRAIN.keys['val'].keys['metrics'] == MapOf(METRIC, optional=True)
    assert TRAIN.keys['train'] is section(TrainOptions)
    assert TRAIN.keys['train'].patterns == {'_opt': LOSS}
    assert isinstance(TEST.keys['networks'].entry, Section)


def test_what_is_added_for_a_run_is_declared(tmp_path):
    """Every key of a run's options, and no other, is in their types."""
    for is_train, recipe in ((True, 'train/demo/mipkd.yml'), (False, 'test/demo.yml')):
        declared, form = (TrainingOptions, TRAIN) if is_train else (option_types.TestingOptions, TEST)
        run = load_options(ROOT / 'options' / recipe, is_train, tmp_path).data
        of_start = {'dist', 'rank', 'world_size', 'auto_resume'}
        assert run.keys() <= declared.__annotations__.keys()
        assert form.keys.keys() & {*ADDED['run']} == set()
        assert {*ADDED['run']} - of_start <= run.keys()
        assert run['path'].keys() - form.keys['path'].keys.keys() <= {*ADDED['path']}
        for dataset in run['datasets'].values():
            assert dataset.keys() - DATASET.keys.keys() == {*ADDED['dataset']}
    assert {'experiments_root', 'results_root'} <= {*ADDED['path']}
    assert 'total_iter' in TrainOptions.__annotations__
    assert 'resume_state' in PathOptions.__annotations__


def test_a_type_checker_knows_the_type_of_an_option(tmp_path):
    pytest.importorskip('mypy')
    (tmp_path / 'user.py').write_text(
        'from mipkd_sr.option_types import RunOptions, TestingOptions, TrainingOptions\n'
        'def f(opt: TrainingOptions, test: TestingOptions, run: RunOptions) -> None:\n'
        "    reveal_type(opt['train']['accumulation_steps'])\n"
        "    reveal_type(test['val']['save_img'])\n"
        "    reveal_type(run['datasets']['test']['dataroot_gt'])\n"
        "    opt['train']['accumulation_step']\n"
    )
    settings = ['--cache-dir', str(tmp_path / 'cache'), '--config-file', str(ROOT / 'pyproject.toml')]
    files = [str(tmp_path / 'user.py'), 'mipkd_sr/option_types.py']  # and no more, such as PyTorch
    command = [sys.executable, '-m', 'mypy', *settings, '--follow-imports', 'skip', *files]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    for shown in ('int', 'bool', 'str | None'):
        assert f'Revealed type is "{shown}"' in said
    assert 'has no key "accumulation_step"' in said
