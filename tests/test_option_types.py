"""The types of a run's options agree with the keys that there are, and reach the type checker."""

import subprocess
import sys
import types
import typing
from typing import get_origin

import pytest
from typing_extensions import NotRequired, get_type_hints

from mipkd_sr import option_types
from mipkd_sr.option_types import (
    Component,
    DatasetOptions,
    DistOptions,
    FigureOptions,
    IoBackendOptions,
    LoggerOptions,
    PathOptions,
    TrainingOptions,
    TrainOptions,
    ValOptions,
)
from mipkd_sr.options import forms
from mipkd_sr.options.keys import DATASET, TEST, TRAIN

from .conftest import ROOT

OF_A_RUN = {'is_train', 'root_path', 'dist', 'rank', 'world_size'}
COMPLETED = {
    TrainingOptions: OF_A_RUN,
    option_types.TestingOptions: OF_A_RUN,
    PathOptions: {'experiments_root', 'models', 'training_states', 'log', 'visualization'},
    option_types.TestingPathOptions: {'results_root', 'log', 'visualization'},
    DatasetOptions: {'phase', 'scale'},
}
"""What is not in an option file, but added for a run."""
OF_FILES = {'import'}
"""What is used as a file is read; a word of Python cannot be declared."""
KINDS = {'str': str, 'int': int, 'float': float, 'bool': bool}
SECTIONS = [
    (TrainingOptions, TRAIN),
    (PathOptions, TRAIN.keys['path']),
    (TrainOptions, TRAIN.keys['train']),
    (ValOptions, TRAIN.keys['val']),
    (LoggerOptions, TRAIN.keys['logger']),
    (DistOptions, TRAIN.keys['dist_params']),
    (DatasetOptions, DATASET),
    (IoBackendOptions, DATASET.keys['io_backend']),
    (option_types.TestingOptions, TEST),
    (option_types.TestingPathOptions, TEST.keys['path']),
    (option_types.TestingValOptions, TEST.keys['val']),
    (option_types.TestedNetworkOptions, TEST.keys['networks'].entry),
    (FigureOptions, TEST.keys['figure']),
]


def type_of(key: forms.Key) -> object:
    if key.kind == 'any':
        return typing.Any
    kind = list[KINDS[key.items]] if key.kind == 'list' else KINDS[key.kind]
    return kind | None if key.default is None else kind


def is_optional(declared: object, name: str) -> bool:
    """Whether a key may be absent from a run's options."""
    return get_origin(get_type_hints(declared, include_extras=True)[name]) is NotRequired


@pytest.mark.parametrize(('declared', 'section'), SECTIONS)
def test_the_types_are_those_of_the_keys(declared, section):
    hints = get_type_hints(declared)
    known = section.keys.keys() - OF_FILES
    assert hints.keys() == known | COMPLETED.get(declared, set())
    optional = {name for name in known if getattr(section.keys[name], 'optional', False)}
    assert {name for name in known if is_optional(declared, name)} == optional | (known & {'network_t'})
    for name in known:
        entry = section.keys[name]
        if name in ('num_gpu', 'gt_size'):  # a number by the time that a run has them
            assert hints[name] is int
        elif isinstance(entry, forms.Key):
            assert hints[name] == type_of(entry), name
        elif isinstance(entry, forms.Component):
            assert hints[name] == Component
        elif isinstance(entry, forms.Section):
            assert typing.is_typeddict(hints[name]) or isinstance(hints[name], types.GenericAlias)


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
