"""``mipkd compare``: a study of tiny runs, its page, what is not run twice, and how it stops and resumes."""

import csv
import io
import json
import multiprocessing
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main
from mipkd_sr.runs.folder_lock import TRAINING_MARKS, own_folder
from mipkd_sr.runs.identity import trained_with
from mipkd_sr.runs.run import Run
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.studies import study_progress
from mipkd_sr.studies.estimate import measure
from mipkd_sr.studies.page import page_text
from mipkd_sr.studies.study import Study
from tests.conftest import ENVIRONMENT, ROOT, STUDENT, TEACHER

STUDY = """
recipe: recipe.yml
seeds: [0, 1]
baseline: logits KD
report_at: [2, 4]
test: test.yml
variants:
  logits KD: {}
  "plain: #1 | slower": {force: ['train:kd_opt=~', 'network_t=~', 'path:pretrain_network_t=~', 'train:optim_g:lr=1e-4']}
"""
PLAIN = 'plain: #1 | slower'


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, '-W', 'ignore', '-m', 'mipkd_sr', 'compare', str(folder / 'study.yml'), *arguments]


def write_study(folder: Path, study: str, opt: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'study.yml').write_text(study)
    (folder / 'recipe.yml').write_text(yaml.safe_dump(opt))
    data = {name: opt['datasets']['val'][name] for name in ('dataroot_gt', 'dataroot_lq')}
    sets = {'test_1': {'name': 'T1', **data}, 'test_2': {'name': 'T2', **data}}
    metrics = {**opt['val']['metrics'], 'ssim': {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True}}
    test = {'name': 't', 'scale': opt['scale'], 'num_gpu': 0, 'datasets': sets, 'val': {'metrics': metrics}}
    (folder / 'test.yml').write_text(yaml.safe_dump(test))
    return folder


@pytest.fixture(scope='module')
def finished(training_options, tmp_path_factory) -> Path:
    """The folder of a study that has been run, under a name that breaks what is not quoted."""
    opt = training_options('kd')
    opt['datasets']['val_2'] = opt['datasets']['val'] | {'name': 'second'}
    folder = write_study(tmp_path_factory.mktemp('study') / 'a: b #1 [c] 100%', STUDY, opt)
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(['compare', str(folder / 'study.yml'), '--jobs', '2']) == 0
    assert len(re.findall(r'^done: ', said.getvalue(), re.M)) == 4
    assert 'To be done: 4 runs, about ' in said.getvalue()
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of it, elsewhere."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def test_the_results_hold_what_the_runs_measured(finished):
    results = json.loads((finished / 'results.json').read_text())
    assert [(run['variant'], run['seed']) for run in results] == [
        ('logits KD', 0),
        (PLAIN, 0),
        ('logits KD', 1),
        (PLAIN, 1),
    ]
    for run in results:
        own = json.loads((finished / 'experiments' / run['run'] / 'validations.json').read_text())
        assert run['validations'] == own
        assert [(entry['iter'], entry['dataset']) for entry in own] == [
            (step, name) for step in (2, 4) for name in ('waves-val', 'second')
        ]
        assert {name: len(images) for name, images in run['tests'].items()} == {'T1': 5, 'T2': 5}
        assert run['tests']['T1']['wave0'].keys() == {'psnr', 'ssim'}
        # the validation images are the test images, and the student that is tested is the one at the end
        mean = statistics.mean(image['psnr'] for image in run['tests']['T1'].values())
        assert mean == pytest.approx(own[-1]['psnr'], abs=1e-9)
        assert run['finished']
        assert len(run['code']) == 1


def test_the_page_has_tables_curves_and_every_runs_command(finished):
    page = (finished / 'report.md').read_text()
    results = json.loads((finished / 'results.json').read_text())
    last = {(run['variant'], run['seed']): run['validations'][-1]['psnr'] for run in results}
    kd = [last['logits KD', seed] for seed in (0, 1)]
    plain = [last[PLAIN, seed] for seed in (0, 1)]
    assert page.startswith('# a: b #1 [c] 100%: report\n\n4 of 4 runs have finished.')
    assert 'partial' not in page
    assert f'{statistics.mean(kd):.2f} ± {statistics.stdev(kd):.2f}' in page
    difference = statistics.mean(b - a for a, b in zip(kd, plain, strict=True))
    assert f'| {difference:+.3f} [' in page
    assert 'plain: #1 \\| slower' in page
    assert '![curves](curves.png)' in page
    assert len(re.findall('^mipkd compare study.yml --run ', page, re.M)) == 4
    for name in ('curves.png', 'curves.pdf'):
        assert (finished / name).stat().st_size > 5000
    with (finished / 'table.csv').open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    values = [float(row['value']) for row in rows if (row['kind'], row['set'], row['metric']) == ('test', 'T2', 'psnr')]
    assert sorted(values) == pytest.approx(sorted(kd + plain), abs=1e-9)


def test_a_run_by_the_pages_command_computes_the_same(copy, finished, monkeypatch):
    """From the root, which is not the folder of the study file here, and where nothing has been trained."""
    root = copy.parent
    for name in ('experiments', 'results'):
        shutil.rmtree(copy / name)
    (copy / 'results.json').unlink()
    monkeypatch.chdir(root)
    assert main(['compare', f'{copy.name}/study.yml', '--root', '.', '--report']) == 0
    assert not (root / 'experiments').exists()
    study = Study(copy / 'study.yml', root)
    word = shlex.quote(f'{copy.name}/study.yml')
    assert f'the whole study: `mipkd compare {word} --root .`.' in (copy / 'report.md').read_text()
    arguments = [*study.words(root)[1:], '--run', study.jobs[1].name]
    assert main(arguments) == 0
    (own,) = root.glob('experiments/*/validations.json')
    assert own.read_text() == (finished / 'experiments' / own.parent.name / 'validations.json').read_text()
    assert (root / 'results' / own.parent.name / 'results.json').is_file()
    report = (copy / 'report.md').read_text()
    assert report.startswith('# a: b #1 [c] 100%: report\n\n0 of 4')  # with --run no page is written
    assert main(['compare', f'{copy.name}/study.yml', '--root', '.', '--report']) == 0
    assert f'\nmipkd compare {word} --root . --run {own.parent.name}\n' in (copy / 'report.md').read_text()


def test_nothing_is_done_twice_and_the_page_can_be_written_again(copy, capsys):
    before = {
        file: file.read_bytes() for file in copy.rglob('*') if file.is_file() and file.suffix not in ('.pdf', '.png')
    }
    assert main(['compare', str(copy / 'study.yml')]) == 0
    assert 'Everything has been done.' in capsys.readouterr().out
    (copy / 'report.md').unlink()
    assert main(['compare', str(copy / 'study.yml'), '--report']) == 0
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_is_found_by_what_it_computes_whatever_its_name(copy, capsys):
    study = (copy / 'study.yml').read_text().replace('logits KD', 'KD with another name')
    (copy / 'study.yml').write_text(study)
    assert main(['compare', str(copy / 'study.yml'), '--plan']) == 0
    out = capsys.readouterr().out
    assert 'Everything has been done.' in out
    assert out.count('is there already, as ') == 2


def test_a_run_that_no_study_started_counts(copy, capsys):
    """The folder alone, and defaults not spelled out, as in a hosted run's."""
    for folder in (copy / 'experiments').iterdir():
        if folder.is_file():
            folder.unlink()
            continue
        (folder / 'history.json').unlink()
        (kept,) = folder.glob('*.yml')
        opt = yaml.safe_load(kept.read_text())
        opt['network_g'] = dict(STUDENT)
        kept.unlink()
        (folder / 'recipe.yml').write_text(yaml.safe_dump(opt))
    assert main(['compare', str(copy / 'study.yml'), '--plan']) == 0
    assert 'Everything has been done.' in capsys.readouterr().out
    assert main(['compare', str(copy / 'study.yml'), '--report']) == 0
    assert 'For 4 runs the version of the code is not known.' in (copy / 'report.md').read_text()


def test_a_changed_recipe_is_told_and_run_under_another_name(copy):
    opt = yaml.safe_load((copy / 'recipe.yml').read_text())
    opt['train']['optim_g']['betas'] = [0.8, 0.99]
    (copy / 'recipe.yml').write_text(yaml.safe_dump(opt))
    jobs = Study(copy / 'study.yml').todo()
    assert len(jobs) == 4
    old = {folder.name for folder in (copy / 'experiments').iterdir()}
    for job in jobs:
        assert job.run.name == f'{job.name}_{job.digest[:8]}'
        assert job.run.name not in old
        assert 'was trained with other options, weights, images or code than it would be now, and is kept' in job.note
        assert job.test_folder.name == job.run.name


def test_another_version_of_the_code_is_told_and_nothing_is_run_again(copy, capsys):
    for file in copy.glob('experiments/*/history.json'):
        file.write_text(json.dumps([{**json.loads(file.read_text())[0], 'code': '0.0.9+12345678'}]))
    assert main(['compare', str(copy / 'study.yml'), '--plan']) == 0
    out = capsys.readouterr().out
    assert 'some runs are of other versions of the code (0.0.9+12345678; this is ' in out
    assert 'Everything has been done.' in out


def test_what_has_finished_is_tested_without_training(copy):
    results = copy / 'results'
    for folder in results.glob('*logits-KD_seed?'):
        shutil.rmtree(folder)
    shutil.rmtree(next(copy.glob('experiments/*slower_seed1')))
    (copy / 'results.json').unlink()
    todo = Study(copy / 'study.yml').todo()
    tested = {job.run.name for job in todo if job.is_trained()}
    assert (len(todo), len(tested)) == (1 + 2, 2)
    assert main(['compare', str(copy / 'study.yml'), '--test', '--jobs', '2']) == 0
    assert [job.stages() for job in Study(copy / 'study.yml').todo()] == [['train', 'test']]
    assert all((results / name / 'results.json').is_file() for name in tested)


def test_what_has_been_measured_is_not_measured_again_on_another_machine(copy, capsys):
    """There the study's folder alone is: its files, and the page with its numbers."""
    written = {name: (copy / name).read_bytes() for name in ('report.md', 'results.json', 'table.csv')}
    shutil.rmtree(copy / 'experiments')
    shutil.rmtree(copy / 'results')
    assert main(['compare', str(copy / 'study.yml')]) == 0
    out = capsys.readouterr().out
    assert 'note: 4 runs have no folder there and are not trained again' in out
    assert 'Everything has been done.' in out
    assert {name: (copy / name).read_bytes() for name in written} == written
    (copy / 'study.yml').write_text((copy / 'study.yml').read_text().replace('logits KD', 'KD with another name'))
    assert main(['compare', str(copy / 'study.yml')]) == 0
    assert 'Everything has been done.' in capsys.readouterr().out
    assert not (copy / 'experiments').exists()


def test_what_an_earlier_page_has_stays_until_a_run_has_come_as_far(copy):
    shutil.rmtree(copy / 'results')
    for folder in copy.glob('experiments/*_seed1'):
        shutil.rmtree(folder)
    kept = json.loads((copy / 'results.json').read_text())
    kept[2]['finished'] = False  # seed 1 of logits KD was stopped after its last validation
    kept[3]['test_digest'] = ''  # and of the other one the test was another
    (copy / 'results.json').write_text(json.dumps(kept))
    study = Study(copy / 'study.yml')
    assert [(job.options['manual_seed'], job.stages()) for job in study.todo()] == [(1, ['train', 'test'])] * 2
    results = list(study.results().values())
    assert [result.validations for result in results] == [entry['validations'] for entry in kept]
    assert [bool(result.tests) for result in results] == [True, True, True, False]
    kept[0]['validations'] = kept[0]['validations'][:2]
    kept[1] = {'variant': 'of another version'}
    (copy / 'results.json').write_text(json.dumps(kept))
    assert [result.steps() for result in Study(copy / 'study.yml').results().values()] == [4, 4, 4, 4]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something else can stand."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in inside for place in leaves(item, (*path, name)))]


def test_a_results_file_that_somebody_has_changed_breaks_nothing(copy, monkeypatch):
    """What cannot be read in it is measured again."""
    shutil.rmtree(copy / 'experiments')
    shutil.rmtree(copy / 'results')
    text = (copy / 'results.json').read_text()
    places, draws = leaves(json.loads(text)), random.Random(5)
    for _ in range(150):
        kept: Any = [json.loads(text)]
        path = (0, *draws.choice(places))
        holder = kept
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = draws.choice([None, 'text', -1, [], {}, [{}], {'a': {}}, True])
        (copy / 'results.json').write_text(json.dumps(kept[0]))
        study = Study(copy / 'study.yml')
        monkeypatch.setattr(study, 'write', lambda: None)
        results = study.results()
        assert page_text(study.study, 4, list(results.values()), '', [])
        study.before_writing()
        if not (earlier := list(copy.glob('earlier_*'))):
            assert json.loads((copy / 'results.json').read_text()) == [] or len(results) == 4
        else:  # nothing of it is lost
            assert json.loads((earlier[0] / 'results.json').read_text()) == kept[0]
            shutil.rmtree(earlier[0])
        assert len(study.todo()) + sum(result.finished for result in results.values()) >= 4


def test_what_was_written_from_runs_that_the_study_has_no_longer_is_archived(copy):
    (copy / 'study.yml').write_text(STUDY.replace('seeds: [0, 1]', 'seeds: [0]'))
    report = (copy / 'report.md').read_bytes()
    assert main(['compare', str(copy / 'study.yml'), '--report']) == 0
    (earlier,) = copy.glob('earlier_*')
    assert (earlier / 'report.md').read_bytes() == report
    assert '2 of 2 runs have finished.' in (copy / 'report.md').read_text()
    study = Study(copy / 'study.yml')
    study.before_writing()
    assert len(list(copy.glob('earlier_*'))) == 1


STUCK = """
import ctypes, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
from mipkd_sr.cli import main
from mipkd_sr.studies import estimate

def never_ends(*arguments):
    print('measuring', flush=True)
    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, (ctypes.c_char * 64)()
    lock(mutex)
    lock(mutex)  # Python hears of no signal in here

estimate.take_step = never_ends
sys.exit(main(['compare', sys.argv[1], '--plan']))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason="a mutex that is all zeros is Linux'")
def test_ctrl_c_ends_a_measurement_whatever_it_is_at(training_options, tmp_path):
    folder = write_study(tmp_path / 'planned', STUDY, training_options('kd'))
    before = sorted(folder.rglob('*'))
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    arguments = [sys.executable, '-W', 'ignore', '-c', STUCK, str(folder / 'study.yml')]
    process = subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)
    try:
        assert process.stdout
        assert any(line == 'measuring\n' for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, 'error: interrupted.\n')
    assert sorted(folder.rglob('*')) == before


def test_a_plan_counts_what_a_step_needs(training_options, tmp_path):
    folder = write_study(tmp_path / 'planned', STUDY, training_options('kd'))
    assert main(['compare', str(folder / 'study.yml'), '--plan']) == 0
    plan = json.loads((folder / 'plan.json').read_text())
    assert plan.keys() == {'logits KD', PLAIN}
    assert not (folder / 'experiments').exists()

    def multiply_adds(net: dict[str, Any], side: int) -> int:
        """Of an EDSR at x2: 3 x 3 convolutions alone."""
        width, blocks = net['num_feat'], net['num_block']
        inside = 3 * width + (2 * blocks + 1) * width * width + width * 4 * width
        return 9 * (inside * side**2 + width * 3 * (2 * side) ** 2)

    batch, side = 2, 8
    kd, plain = (plan[name]['multiply_adds_per_step'] for name in ('logits KD', PLAIN))
    assert kd - plain == batch * multiply_adds(TEACHER, side)
    student = multiply_adds(STUDENT, side)
    first = 9 * 3 * STUDENT['num_feat'] * side**2  # whose input needs no gradient
    assert plain == batch * (3 * student - first)


def test_accumulated_batches_are_counted_each(training_options, tmp_path):
    folder = write_study(tmp_path, STUDY, training_options('kd', train={'accumulation_steps': 3}))
    job = Study(folder / 'study.yml').jobs[0]
    three = measure(job.completed_options().training, 1)
    job.options['train']['accumulation_steps'] = 1
    assert three.multiply_adds_per_step == 3 * measure(job.completed_options().training, 1).multiply_adds_per_step


def test_a_run_that_fails_is_one_sentence(training_options, tmp_path, capsys):
    study = """
recipe: recipe.yml
variants: {diverges: {force: ['train:optim_g:lr=1e30', 'train:max_skipped_steps=0']}}
"""
    folder = write_study(tmp_path, study, training_options(train={'scheduler': {'milestones': [100]}}))
    assert main(['compare', str(folder / 'study.yml')]) == 4
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith('error: 1 of 1 runs failed, the first: ')
    assert line.endswith('; mend what is said of each above, and run this again to go on.')
    assert '_diverges_seed0: its training failed with exit code 4: iteration 2 was skipped: l_pix not fini' in said.out


def until(condition: Any, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'in vain'
        time.sleep(0.05)


@pytest.fixture
def long_study(training_options, tmp_path) -> Path:
    study = 'recipe: recipe.yml\nvariants: {long: {}}'
    opt = training_options(train={'total_iter': 100_000}, val={'val_freq': 100_000})
    opt['logger'] |= {'save_checkpoint_freq': 100_000, 'print_freq': 2}
    return write_study(tmp_path / 'long', study, opt)


def test_it_is_stopped_and_resumes(long_study):
    log, states = long_study / 'experiments' / 'long_long_seed0.log', []
    run = Run.named(long_study, 'long_long_seed0')
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = run.steps_taken()
        process = subprocess.Popen(
            command(long_study), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
        )
        until(lambda before=before: run.steps_taken() > before)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code, said
        assert said == f'stopped by {number.name}; run this again to go on\n'
        newest = max(int(file.stem) for file in long_study.glob('experiments/*/training_states/*.state'))
        states.append(newest)
    assert 0 < states[0] < states[1]
    assert b'Going on from' in log.read_bytes()
    state = load_file(next(long_study.glob(f'experiments/*/training_states/{states[1]}.state')))
    assert state['iter'] == states[1]
    (job,) = Study(long_study / 'study.yml').todo()
    assert job.steps_to_do() == 100_000 - states[1]


def work(commands: list[str], log: Path) -> None:
    """Take one command after the other, in a process of its own."""
    with log.open('w') as stream, redirect_stdout(stream):
        sys.exit(max(main(shlex.split(command)[1:]) for command in commands))


def test_two_workers_take_commands_from_one_list(training_options, tmp_path, capsys):
    """Each goes through all of it: the lock decides who trains a run, and nothing is trained twice."""
    study = 'recipe: recipe.yml\nseeds: [0, 1]\nvariants: {a: {}}'
    folder = write_study(tmp_path, study, training_options(train={'total_iter': 60}, val={'val_freq': 30}))
    assert main(['compare', str(folder / 'study.yml'), '--commands']) == 0
    commands = capsys.readouterr().out.splitlines()
    jobs = Study(folder / 'study.yml').jobs
    assert [shlex.split(command)[-2:] for command in commands] == [['--run', job.name] for job in jobs]
    logs = [tmp_path / 'first.log', tmp_path / 'second.log']
    start = multiprocessing.get_context('fork').Process
    workers = [start(target=work, args=(commands, log)) for log in logs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(500)
    said = [log.read_text() for log in logs]
    assert [worker.exitcode for worker in workers] == [0, 0], said
    assert [job.stages() for job in jobs] == [[], []]
    for job in jobs:
        logs = [log.read_text() for log in job.run.folder.glob('train_*.log')]
        assert sum(log.count('iter 60/60') for log in logs) == 1
    assert main(['compare', str(folder / 'study.yml'), '--commands']) == 0
    assert capsys.readouterr().out.strip() == ''
    assert main(['compare', str(folder / 'study.yml'), '--run', 'absent']) == 2
    assert '--run: there is no run absent in it; ' in capsys.readouterr().err


def test_what_another_process_is_at_is_left_to_it(training_options, tmp_path, capsys):
    folder = write_study(tmp_path, 'recipe: recipe.yml\nvariants: {a: {}}', training_options())
    (job,) = Study(folder / 'study.yml').jobs
    with own_folder(job.run.folder, TRAINING_MARKS, anew=False):
        assert main(['compare', str(folder / 'study.yml')]) == 0
    said = capsys.readouterr().out
    assert f'elsewhere: another process is at {job.run.name} (1 of 1 runs' in said
    assert 'when they have ended, --report writes it' in said


def changed_meanwhile(training_options: Any, tmp_path: Path) -> tuple[Study, Any]:
    """A study that was planned, of which another process, with another recipe, has trained a run since."""
    folder = write_study(tmp_path, 'recipe: recipe.yml\nvariants: {fast: {}}', training_options())
    planned = Study(folder / 'study.yml')
    planned.estimates(measure=True)
    opt = yaml.safe_load((folder / 'recipe.yml').read_text())
    opt['train']['optim_g']['lr'] = 5e-3
    (folder / 'recipe.yml').write_text(yaml.safe_dump(opt))
    assert Study(folder / 'study.yml').execute() == 0
    return planned, opt


def test_a_run_that_another_recipe_has_taken_meanwhile_is_not_taken_for_ones_own(training_options, tmp_path):
    planned, _ = changed_meanwhile(training_options, tmp_path)
    (theirs,) = tmp_path.glob('experiments/*/validations.json')
    before = theirs.read_text()
    assert planned.execute() == 0
    (job,) = planned.jobs
    assert job.run.name == f'{job.name}_{job.digest[:8]}'
    (result,) = planned.results().values()
    assert result.validations == job.run.validations() != json.loads(before)
    assert theirs.read_text() == before
    assert trained_with(job.run).digest == job.digest == result.digest


def test_a_run_that_was_resumed_with_other_options_is_not_taken_for_one_of_them(training_options, tmp_path):
    """As it was trained with them for its second half alone."""
    opt = training_options(train={'total_iter': 2, 'scheduler': {'milestones': [100]}})
    folder = write_study(tmp_path, 'recipe: recipe.yml\nseeds: [3]\nvariants: {a: {}}', opt | {'name': 'own'})
    force = ['train:optim_g:lr=1e-5', 'train:total_iter=4']
    again = ['train', '-opt', str(folder / 'recipe.yml'), '--root', str(tmp_path), '--auto_resume']
    assert main(again) == 0
    assert [job.run.name for job in Study(folder / 'study.yml').jobs if job.is_trained()] == ['own']
    assert main([*again, '--force_yml', *force]) == 0
    assert Run.named(tmp_path, 'own').is_finished(4)
    (folder / 'study.yml').write_text(
        f'recipe: recipe.yml\nseeds: [3]\nvariants: {{a: {{force: {json.dumps(force)}}}}}'
    )
    (job,) = Study(folder / 'study.yml').jobs
    assert not job.is_trained()
    assert job.run.name == job.name


@pytest.mark.parametrize('what', ['teacher', 'image'])
def test_a_run_under_another_teacher_or_on_other_images_is_another(what, training_options, pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / 'data')
    opt = training_options('kd', train={'total_iter': 2})
    shutil.copy(opt['path']['pretrain_network_t'], tmp_path / 'teacher.pth')
    opt['path']['pretrain_network_t'] = 'teacher.pth'
    for dataset in opt['datasets'].values():
        dataset |= {'dataroot_gt': 'data/HR', 'dataroot_lq': 'data/LR_x2'}
    folder = write_study(tmp_path, 'recipe: recipe.yml\nseeds: [3]\nvariants: {a: {}}', opt | {'name': 'own'})
    assert main(['train', '-opt', str(folder / 'recipe.yml'), '--root', str(tmp_path)]) == 0

    def located() -> tuple[str, bool]:
        (job,) = Study(folder / 'study.yml').jobs
        return job.run.name, job.is_trained()

    assert located() == ('own', True)
    if what == 'teacher':
        torch.save({'params': build_network(TEACHER).state_dict()}, tmp_path / 'teacher.pth')
    else:
        shutil.copy(tmp_path / 'data' / 'HR' / 'wave1.png', tmp_path / 'data' / 'HR' / 'wave2.png')
    assert located()[1] is False


@pytest.mark.parametrize('content', ['null', '5', '"x"', '{}', '[3]', '{"a": 5}', '{"a": {"digest": 1}}', '['])
def test_files_of_a_study_that_somebody_has_changed_are_as_if_they_were_not_there(content, copy):
    for file in [copy / 'plan.json', *copy.glob('results/*/results.json'), *copy.glob('experiments/*/*.json')]:
        file.write_text(content)
    study = Study(copy / 'study.yml')
    assert study.write().is_file()
    assert [result.steps() for result in study.results().values()] == [4, 4, 4, 4]  # as results.json has them


def test_where_there_is_no_terminal_a_line_a_minute_says_how_far_it_is(copy, monkeypatch, capsys):
    monkeypatch.setattr(study_progress, 'LOOK_SECONDS', 0)
    monkeypatch.setattr(study_progress, 'LINE_SECONDS', 0)
    jobs = Study(copy / 'study.yml').jobs
    for job in jobs[:2]:
        shutil.rmtree(job.run.folder)
    jobs[1].run.folder.mkdir()
    jobs[1].run.save_timing(3, 0.1)
    told = study_progress.StudyProgress(jobs, {}, 2)
    told.look([jobs[1], jobs[2]])
    line = capsys.readouterr().out
    assert re.fullmatch(
        rf'0 of 4 runs, about 0:00:0\d left; {re.escape(jobs[1].run.name)} at step 3 of 4; '
        rf'{re.escape(jobs[2].run.name)} is being tested\n',
        line,
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.yml'], 'absent.yml: cannot be read (there is no such file); give a study file.'),
        (['study.yml'], 'datasets:train:dataroot_gt: there is no '),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, training_options, tmp_path, monkeypatch, capsys):
    opt = training_options()
    opt['datasets']['train']['dataroot_gt'] = 'absent'
    monkeypatch.chdir(write_study(tmp_path, 'recipe: recipe.yml\nvariants: {a: {}}', opt))
    assert main(['compare', *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line
    with pytest.raises(SystemExit):
        main(['compare', 'study.yml', '--jobs', '0'])
    assert '--jobs: must be at least 1' in capsys.readouterr().err
