"""Studies: what identifies a run, the statistics, and the plan; nothing here trains."""

import json
import math
import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mipkd_sr.options.checking import check
from mipkd_sr.options.defaults import spell_out
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.options.reading import dump_options
from mipkd_sr.runs.identity import digest, kept_digest
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.studies import estimate
from mipkd_sr.studies.collect import Result
from mipkd_sr.studies.estimate import Estimate
from mipkd_sr.studies.study import Study
from mipkd_sr.studies.study_file import planned_jobs, read_study, scale_steps, slug, study_root
from mipkd_sr.studies.tables import on_test_set, paired_by_image, paired_by_seed, t_interval
from tests.conftest import ROOT

A_STEP = Estimate(0.1, 1e6, 0.0)


def checked(opt):
    opt = deepcopy(opt)
    check(opt, TRAIN)
    return opt


@pytest.fixture
def study(training_options, write_options, tmp_path):
    """A function that writes a study file over a tiny recipe, and gives it."""

    def write(text, objectives=('kd',), **changes):
        write_options(training_options(*objectives, **changes), 'recipe.yml')
        file = tmp_path / 'study.yml'
        file.write_text(text)
        return file

    return write


def test_what_a_run_is_called_and_where_it_lies_is_not_what_it_computes(training_options, tmp_path):
    opt = checked(training_options('kd', 'mipkd'))
    first = digest(opt, tmp_path)
    other = deepcopy(opt)
    other['name'] = 'another'
    other['logger']['print_freq'] = 77
    other['datasets']['train']['num_worker_per_gpu'] = 6
    other['train']['optim_g']['lr'] = 0.001
    other['train']['scheduler']['gamma'] = 0.5
    assert digest(other, tmp_path) == first
    for key, value in (('manual_seed', 4), ('scale', 4)):
        assert digest(opt | {key: value}, tmp_path) != first
    other['train']['mipkd_opt']['drop_probability'] = 0.5
    assert digest(other, tmp_path) != first


def test_a_default_that_is_written_out_is_the_same_run(training_options, tmp_path):
    opt = checked(training_options('kd', 'mipkd'))
    spelled = spell_out(deepcopy(opt))
    assert spelled['train']['mipkd_opt']['drop_probability'] == 0.75
    assert spelled['network_g']['res_scale'] == 1
    check(spelled, TRAIN)
    assert digest(spelled, tmp_path) == digest(opt, tmp_path)


def test_a_kept_option_file_tells_the_run_on_any_machine(training_options, write_options, tmp_path):
    opt = training_options('kd')
    opt['path']['pretrain_network_t'] = 'weights/teacher.pth'
    file = write_options(opt)
    planned = digest(checked(opt), tmp_path)
    for root in (tmp_path, Path('/somewhere/else')):
        kept = load_options(file, True, root).data | {'rank': 0, 'world_size': 1, 'dist': False, 'num_gpu': 0}
        folder = tmp_path / f'run_{root.name}'
        folder.mkdir()
        (folder / 'recipe.yml').write_text(dump_options(kept))
        assert kept_digest(folder) == planned
    assert kept_digest(tmp_path / 'absent') is None


STUDIES = [file for file in (ROOT / 'experiments/studies').rglob('*.yml') if '\nvariants:' in file.read_text()]


@pytest.mark.parametrize('file', STUDIES, ids=lambda file: f'{file.parent.name}/{file.stem}')
def test_the_studies_that_are_there_can_be_read(file):
    study = read_study(file)
    assert study.root == ROOT
    jobs = planned_jobs(study)
    digests = {digest(job.options, ROOT) for job in jobs}
    assert len(digests) == len(jobs) == sum(len(own.seeds) for own in study.variants.values())
    assert all(job.name.startswith(f'{slug(study.folder.name)}_') for job in jobs)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'variants: {a: {recipe: x.yml, froce: []}}',
            "variants:a:froce: is not a key that is known here; did you mean 'fo",
        ),
        ('variant: {}', "variant: is not a key that is known here; did you mean 'variants'?"),
        ('[', 'is not valid YAML'),
        ('variants: {a: {}, a: {}}', 'a: stands twice'),
        ('variants: {a: {}}', 'variants:a: has no recipe'),
        ('recipe: absent.yml\nvariants: {a: {}}', 'variants:a: absent.yml: there is no such file and no such recipe'),
        ('recipe: recipe.yml\nvariants: {a: {}, b: {}}', "variants:b: computes the same as 'a'"),
        ('recipe: recipe.yml\nvariants: {a: {steps: 0}}', 'variants:a:steps: must be greater than 0'),
        (
            'recipe: recipe.yml\nvariants: {a: {force: ["train:lr=1"]}}',
            'variants:a: --force_yml: train:lr: is not a key',
        ),
        ('recipe: recipe.yml\nvariants: {a: {}}\nbaseline: b', "baseline: 'b' is none of the variants"),
        ('recipe: recipe.yml\nvariants: {a: {}}\nreport_at: [3]', 'report_at: 3 is no step at which'),
        ('recipe: recipe.yml\nvariants: {a: {}}\nseeds: [0, 0]', 'seeds: must name at least one seed, and each once'),
        ('recipe: recipe.yml\nvariants: {a: {}}\nseeds: [x]', 'seeds:0: must be a whole number'),
        ('recipe: recipe.yml\nvariants: {a: {seeds: [1]}}', "variants:a:seeds: must be some of the study's, [0]"),
        ('recipe: recipe.yml\nvariants: {a: {seeds: []}}', "variants:a:seeds: must be some of the study's, [0]"),
        ('recipe: recipe.yml\nvariants: {a: {force: [1]}}', 'variants:a:force:0: must be text'),
        ('recipe: recipe.yml\nvariants: {a: {steps: .inf}}', 'variants:a:steps: must be finite'),
    ],
)
def test_a_bad_study_is_one_sentence(text, message, study):
    file = study(text)
    with pytest.raises(OptionError) as error:
        read_study(file)
    assert message in str(error.value)
    assert str(error.value).startswith(f'{file}: ')
    assert len(str(error.value).splitlines()) == 1


def test_a_variant_may_have_some_of_the_seeds_alone(study):
    text = 'recipe: recipe.yml\nseeds: [0, 1]\nvariants:\n  a: {}\n  b: {steps: 2, seeds: [1]}'
    assert [(job.variant, job.options['manual_seed']) for job in planned_jobs(read_study(study(text)))] == [
        ('a', 0),
        ('a', 1),
        ('b', 1),
    ]


def test_every_run_of_the_long_study_is_kept():
    file = ROOT / 'experiments/studies/convergence/study.yml'
    planned = {(job.variant, job.options['manual_seed']) for job in planned_jobs(read_study(file))}
    kept = json.loads(file.with_name('results.json').read_text())
    assert planned == {(run['variant'], run['seed']) for run in kept if run['finished']}


def test_variants_of_one_slug_have_folders_of_their_own(study):
    file = study(
        'recipe: recipe.yml\nvariants:\n  lr 1e-3: {}\n  "lr: 1e-3": {force: ["train:optim_g:lr=2e-3"]}\n'
        '  LR 1E-3: {force: ["train:optim_g:lr=3e-3"]}'
    )
    names = [job.name for job in planned_jobs(read_study(file))]
    assert len({name.lower() for name in names}) == 3
    assert all('lr-1e-3_seed0_' in name.lower() for name in names)


def test_more_steps_come_with_their_schedule(training_options):
    opt = checked(training_options('kd', train={'total_iter': 100, 'warmup_iter': 10}))
    opt['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [50, 80], 'gamma': 0.5}
    scale_steps(opt, 2.25)
    assert opt['train']['total_iter'] == 225
    assert opt['train']['warmup_iter'] == 22
    assert opt['train']['scheduler'] == {'type': 'MultiStepLR', 'milestones': [112, 180], 'gamma': 0.5}
    opt['train']['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [60, 40]}
    scale_steps(opt, 0.5)
    assert opt['train']['scheduler']['periods'] == [30, 20]


@given(st.text(max_size=300))
def test_a_slug_is_one_plain_component(text):
    name = slug(text)
    assert name
    assert Path(name).name == name
    assert not name.startswith('.')
    assert len(f'study_{name}_seed0_12345678'.encode()) < 512
    assert slug(name) == name


def test_the_root_is_what_holds_the_experiments(tmp_path):
    assert study_root(tmp_path / 'a' / 'experiments' / 'studies' / 'x' / 'study.yml') == tmp_path / 'a'
    assert study_root(tmp_path / 'a' / 'study.yml') == tmp_path / 'a'


def test_steps_are_timed_in_the_files_order_with_the_threads_of_the_runs(study, monkeypatch):
    own, measured = Study(study('recipe: recipe.yml\nseeds: [0, 1]\nvariants: {b: {}, a: {steps: 2}}')), []
    monkeypatch.setattr(
        estimate, 'measure', lambda opt, threads: measured.append((opt['train']['total_iter'], threads)) or A_STEP
    )
    share = max(1, (os.cpu_count() or 1) // 2)
    for text, threads in (('3', 3), ('5,2', 5), ('', share), ('many', share)):
        monkeypatch.setenv('OMP_NUM_THREADS', text)
        own.devices, measured[:] = ['', ''], []
        (own.folder / 'plan.json').unlink(missing_ok=True)
        assert list(own.estimates(measure=True)) == ['b', 'a']
        steps = [job.total_iter for job in own.jobs[:2]]
        assert measured == [(number, threads) for number in steps]


def test_the_interval_over_seeds_is_students():
    own, base = {0: 31.5, 1: 31.9, 2: 31.4, 7: 1.0}, {0: 31.2, 1: 31.8, 2: 31.2, 9: 2.0}
    found = paired_by_seed(own, base)
    test = stats.ttest_rel([31.5, 31.9, 31.4], [31.2, 31.8, 31.2])
    interval = test.confidence_interval(0.95)
    assert found is not None
    assert found.size == 3
    np.testing.assert_allclose([found.mean, found.low, found.high], [0.2, interval.low, interval.high])
    assert paired_by_seed({0: 1.0}, {1: 1.0}) is None
    assert math.isnan(t_interval([1.0]).low)


def test_the_interval_over_images_is_the_bootstraps():
    rng = np.random.default_rng(3)
    base = {seed: {f'image{i}': value for i, value in enumerate(rng.normal(30, 2, 40))} for seed in range(2)}
    own = {seed: {name: value + rng.normal(0.3, 0.4) for name, value in base[seed].items()} for seed in range(2)}
    found = paired_by_image(own, base)
    differences = [np.mean([own[seed][name] - base[seed][name] for seed in range(2)]) for name in base[0]]
    other = stats.bootstrap((differences,), np.mean, method='percentile', rng=np.random.default_rng(5))
    assert found is not None
    assert found == paired_by_image(own, base)
    np.testing.assert_allclose(found.mean, np.mean(differences))
    spread = other.confidence_interval.high - other.confidence_interval.low
    np.testing.assert_allclose(found[1:3], other.confidence_interval, atol=0.05 * spread)


def test_images_that_a_seed_lacks_are_left_out():
    own = {0: {'a': 3.0, 'b': 5.0, 'c': 9.0}, 1: {'b': 6.0, 'c': 9.0}}
    baseline = {0: {'a': 1.0, 'b': 4.0}, 1: {'a': 1.0, 'b': 4.0, 'c': 1.0}}
    interval = paired_by_image(own, baseline)
    assert interval is not None
    assert (interval.mean, interval.size) == (1.5, 1)
    assert paired_by_image({0: {'a': 1.0}}, {0: {'b': 1.0}}) is None


def test_a_difference_over_images_is_of_the_seeds_that_were_tested():
    def results(variant, *psnrs):
        tests = [{'Set5': {'a': {'psnr': psnr}}} if psnr else {} for psnr in psnrs]
        return [Result(variant, seed, '', '', True, 9, tests=own) for seed, own in enumerate(tests)]

    column = on_test_set('Set5', 'psnr')
    for over in ('seeds', 'images'):
        assert column.difference(results('own', 31.25, None), results('base', 30.0, 28.0), over) == '+1.250'
        assert column.difference(results('own', None), results('base', 30.0), over) == '-'


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_an_interval_moves_with_its_values(values):
    found, moved = t_interval(values), t_interval([value + 3 for value in values])
    assert found.low <= found.mean <= found.high
    np.testing.assert_allclose(np.array(moved[:3]) - 3, found[:3], atol=1e-9)
