"""The types of a run's options agree with the keys that there are, and reach the type checker."""

import subprocess
import sys
import types
import typing

import pytest

from mipkd_sr.option_types import (
    Component,
    DatasetOptions,
    DistOptions,
    IoBackendOptions,
    LoggerOptions,
    PathOptions,
    TrainingOptions,
    TrainOptions,
    ValOptions,
)
from mipkd_sr.options import forms
from mipkd_sr.options.keys import DATASET, TRAIN

from .conftest import ROOT

COMPLETED = {
    TrainingOptions: {'is_train', 'root_path', 'dist', 'rank', 'world_size'},
    PathOptions: {'experiments_root', 'models', 'training_states', 'log', 'visualization'},
    DatasetOptions: {'phase', 'scale'},
}
"""What is not in an option file, but added for a run."""
OF_FILES = {TrainingOptions: {'import'}}
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
]


def type_of(key: forms.Key) -> object:
    if key.kind == 'any':
        return typing.Any
    kind = list[KINDS[key.items]] if key.kind == 'list' else KINDS[key.kind]
    return kind | None if key.default is None else kind


@pytest.mark.parametrize(('declared', 'section'), SECTIONS)
def test_the_types_are_those_of_the_keys(declared, section):
    hints = typing.get_type_hints(declared)
    known = section.keys.keys() - OF_FILES.get(declared, set())
    assert hints.keys() == known | COMPLETED.get(declared, set())
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
        'from mipkd_sr.option_types import TrainingOptions\n'
        'def f(opt: TrainingOptions) -> None:\n'
        "    reveal_type(opt['train']['accumulation_steps'])\n"
        "    opt['train']['accumulation_step']\n"
    )
    settings = ['--cache-dir', str(tmp_path / 'cache'), '--config-file', str(ROOT / 'pyproject.toml')]
    command = [sys.executable, '-m', 'mypy', *settings, '--follow-imports', 'silent', str(tmp_path / 'user.py')]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    assert 'Revealed type is "int"' in said
    assert 'has no key "accumulation_step"' in said
