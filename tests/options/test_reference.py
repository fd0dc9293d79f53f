"""The reference of option files and the JSON schema, which follow from the keys and the classes themselves."""

import subprocess
import sys
from typing import ClassVar

import pytest
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

from mipkd_sr.models import DistillModel
from mipkd_sr.options.checking import arguments_of
from mipkd_sr.options.keys import LOSS, NETWORK, OPTIMIZER
from mipkd_sr.options.reading import read_options
from mipkd_sr.options.recipes import RECIPES, recipe_file, recipe_names
from mipkd_sr.options.reference import OPTIMIZERS, argument_texts, reference
from mipkd_sr.options.schema import option_file_schema
from mipkd_sr.runtime.strict_yaml import read_yaml
from tests.conftest import ENVIRONMENT, ROOT

RENEW = 'mipkd options > docs/options.md'


def without_optimizers(text: str) -> str:
    """The reference but for what depends on the installed PyTorch."""
    return text.partition(OPTIMIZERS)[0]


def test_the_page_on_options_is_what_the_command_prints():
    command = [sys.executable, '-m', 'mipkd_sr', 'options']  # other tests register classes of their own in this process
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    page = (ROOT / 'docs' / 'options.md').read_text(encoding='utf-8')
    assert without_optimizers(page) == without_optimizers(done.stdout), f'docs/options.md is stale; renew it: {RENEW}'
    assert OPTIMIZERS in page


def test_the_page_names_what_every_loss_of_ours_takes():
    page = (ROOT / 'docs' / 'options.md').read_text(encoding='utf-8')
    for name in LOSS.names():
        loss = LOSS.find(name)
        if loss.__module__.startswith('mipkd_sr.'):
            section = page.partition(f'### `{name}`\n')[2].partition('\n#')[0]
            assert all(f'| `{argument}` |' in section for argument in arguments_of(loss)[0]), name


def test_arguments_are_read_from_a_docstring():
    text = 'A.\n\nArgs:\n    a: One\n        line more.\n    b (int): Two. Default: 3.\n\nReturns:\n    c: Three.'
    assert argument_texts(text) == {'a': 'One line more.', 'b': 'Two. Default: 3.'}


@pytest.fixture(scope='module')
def validator():
    jsonschema = pytest.importorskip('jsonschema')
    schema = option_file_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize('file', sorted(RECIPES.rglob('*.yml')), ids=lambda file: str(file.relative_to(RECIPES)))
def test_every_option_file_of_the_package_fits_the_schema_as_it_is_written(file, validator):
    if 'tables' not in file.parts:
        validator.validate(read_yaml(file))


@pytest.mark.parametrize('name', [name for name in recipe_names() if not name.startswith('tables')])
def test_every_recipe_fits_the_schema_when_it_is_merged(name, validator):
    options = read_options(recipe_file(name))
    validator.validate(options.template)
    validator.validate(options.data)


@pytest.mark.parametrize(
    'change',
    [
        {'sclae': 2},
        {'scale': 0},
        {'train': {'total_itre': 5}},
        {'train': {'total_iter': 'many'}},
        {'train': {'precision': 'fp8'}},
        {'train': {'mipkd_opt': {'type': 'MiPKDLoss', 'feat_wieght': 1}}},
        {'train': {'mipkd_opt': {'type': 'MiPKDLoss', 'feat_weight': 'much'}}},
        {'train': {'optim_g': {'type': 'Adam', 'betas': 0.9}}},
        {'network_g': {'type': 'StagedEDSR', 'num_feat': [64]}},
        {'datasets': {'trian': {'name': 'x'}}},
        {'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_boarder': 2}}}},
        {'val': {'tile': -1}},
    ],
)
def test_what_is_misspelt_or_wrong_does_not_fit_the_schema(change, validator):
    assert not validator.is_valid(change)


@pytest.mark.parametrize(
    'change',
    [
        {'base': '../run.yml', 'network_g': {'num_feat': 64}},
        {'network_g': {'type': 'MyNet', 'anything': [1]}, 'import': ['my_package']},
        {'network_g': {'type': 'StagedEDSR', 'upscale': '{scale}'}},
        {'train': {'kd_opt': None, 'tf32': None, 'scheduler': {'type': 'MultiStepLR', 'milestones': [1]}}},
    ],
)
def test_what_may_be_written_fits_the_schema(change, validator):
    validator.validate(change)


class Adversarial(DistillModel):
    """Has a discriminator."""

    own_options: ClassVar = {'network_d': NETWORK, 'train:optim_d': OPTIMIZER}


def test_a_users_own_options_are_listed_and_a_registered_number_is_passed_over(monkeypatch):
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, 'Adversarial', Adversarial)
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Odd', 3)
    text = reference()
    section = text.partition('### The model `Adversarial` also takes')[2].partition('###')[0]
    assert '`network_d`' in section
    assert '`train:optim_d`' in section
    assert '### `Odd`' in text
    training = option_file_schema()['definitions']['training']
    assert 'network_d' in training['properties']
    assert 'optim_d' in training['properties']['train']['properties']
