"""``mipkd compare``: a study of tiny runs, its report, and that nothing is run twice."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from .conftest import ROOT

COMMAND = [sys.executable, '-W', 'ignore', '-m', 'mipkd_sr', 'compare']


def compare(folder, *arguments):
    command = [*COMMAND, str(folder / 'study.yml'), '--root', str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_study_is_run_once_and_reported(training_options, write_options, tmp_path):
    write_options(training_options('kd'), 'recipe.yml')
    variants = {'logits KD': {}, 'plain, slower': {'force': ['train:kd_opt=~', 'train:optim_g:lr=1e-4']}}
    study = {'recipe': 'recipe.yml', 'seeds': [0, 1], 'variants': variants}
    (tmp_path / 'study.yml').write_text(yaml.safe_dump(study, sort_keys=False))
    first = compare(tmp_path, '--jobs', '2')
    assert first.returncode == 0, first.stderr
    assert first.stdout.count('training ') == 4
    with (tmp_path / 'table.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row['variant'], row['seeds'], row['steps']) for row in rows] == [
        ('logits KD', '2', '4'),
        ('plain, slower', '2', '4'),
    ]
    results = json.loads((tmp_path / 'results.json').read_text())
    values = [run['validations'][-1]['psnr'] for run in results if run['variant'] == 'logits KD']
    assert rows[0]['psnr on waves-val'].startswith(f'{sum(values) / 2:.2f} ± ')
    assert values[0] != values[1]
    assert (tmp_path / 'curves.png').stat().st_size > 5000
    assert '± ' in (tmp_path / 'table.md').read_text()

    again = compare(tmp_path)
    assert again.returncode == 0, again.stderr
    assert 'training ' not in again.stdout
    assert '| logits KD' in again.stdout


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('variants: {a: {recipe: x.yml, froce: []}}', 'variants:a'),
        ('variant: {}', 'must have the keys'),
        ('[', 'as YAML'),
    ],
)
def test_a_bad_study_is_one_sentence(text, message, tmp_path):
    (tmp_path / 'study.yml').write_text(text)
    done = compare(tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1
