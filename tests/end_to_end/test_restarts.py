"""Stopping, killing and resuming: nothing is lost, and the result is that of an undisturbed run."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from basicsr.utils import get_root_logger

import mipkd_sr.test
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.data.stream import StreamSampler
from mipkd_sr.runs import run as run_files
from mipkd_sr.runs.run import Run
from mipkd_sr.runtime.checkpoint import load_file, save_atomically, write_digest
from mipkd_sr.runtime.files import atomic_write
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, METHODS, ROOT, experiment, launch, same, smooth_image, state

TRAIN = str(ROOT / 'mipkd_sr' / 'train.py')
FOLDERS = {'gt': 'HR', 'lq': 'LR_x2'}


def logged_losses(folder: Path) -> dict[int, str]:
    """What the newest log of the run says of each iteration: learning rate and losses."""
    newest = max(experiment(folder).glob('train_*.log'), key=lambda file: file.stat().st_mtime_ns)
    lines = re.findall(r'iter (\d+)/\d+, (lr [^,]+), .*?(l_pix: .*)', newest.read_text())
    return {int(iteration): f'{lr} {losses}' for iteration, lr, losses in lines}


def take_back_to_the_middle(folder: Path) -> tuple[dict, dict[int, str]]:
    """Remove the last of the states 2 and 4; returns it and the losses logged after the first."""
    last, losses = state(folder, 4), logged_losses(folder)
    (experiment(folder) / 'training_states' / '4.state').unlink()
    for file in experiment(folder).glob('*.log'):
        file.unlink()
    return last, {iteration: text for iteration, text in losses.items() if iteration > 2}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('workers', [0, 4])
@pytest.mark.filterwarnings('ignore:This DataLoader will create:UserWarning')  # fewer cores than workers
def test_resuming_is_exact(method, workers, training_options, write_options, tmp_path):
    opt = training_options(
        *METHODS[method], train={'ema_decay': 0.9}, datasets={'train': {'num_worker_per_gpu': workers}}
    )
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    undisturbed, losses = take_back_to_the_middle(tmp_path)
    assert undisturbed['best_metric_results']['waves-val']['psnr']['iter'] in (2, 4)
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(state(tmp_path, 4), undisturbed)
    assert logged_losses(tmp_path) == losses != {}
    assert len(list((tmp_path / 'experiments').iterdir())) == 1  # resumed in place, nothing renamed


@pytest.mark.parametrize('method', ['mipkd', 'dukd'])  # logits KD is in both
def test_resuming_two_processes_is_exact(method, training_options, write_options, tmp_path):
    opt = training_options(
        *METHODS[method],
        train={'ema_decay': 0.9},
        datasets={'train': {'num_worker_per_gpu': 4 if method == 'mipkd' else 0}},
    )
    file = write_options(opt)
    command = launch(2, '-m', 'mipkd_sr.train', '-opt', file, '--launcher', 'pytorch')
    for resume in ([], ['--auto_resume']):
        done = subprocess.run([*command, *resume], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if not resume:
            undisturbed, losses = take_back_to_the_middle(tmp_path)
    assert same(state(tmp_path, 4), undisturbed)
    assert logged_losses(tmp_path) == losses != {}


def test_another_number_of_processes_reads_on_where_the_first_stopped(training_options, write_options, tmp_path):
    """Five images, two a batch: after two iterations the epoch goes on with its fifth."""
    opt = training_options(train={'total_iter': 2})
    assert main(['-opt', str(write_options(opt))]) == 0
    assert state(tmp_path, 2)['samples'] == 4
    opt['train']['total_iter'] = 4
    opt['datasets']['train']['batch_size_per_gpu'] = 3
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 0
    assert state(tmp_path, 4)['samples'] == 10


KILL_RUNS = """
import multiprocessing, os, random, signal, sys, time
import torch
from pathlib import Path
from mipkd_sr.runs.run import Run
from mipkd_sr.train import main

torch.set_num_threads(1)  # sums in another order on another number of threads
file, root, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])

def start(root, total):
    arguments = ['-opt', file, '--auto_resume', '--root', root, '--force_yml', f'train:total_iter={total}']
    process = multiprocessing.get_context('fork').Process(target=lambda: sys.exit(main(arguments)))
    process.start()
    return process

def newest():
    states = Run(Path(root, 'killed/experiments/tiny')).numbered_states()
    return int(states[0].stem) if states else 0

rng = random.Random(11)
for number in range(kills):
    before = newest()
    process = start(root + '/killed', 10**6)
    while number % 3 == 0 and newest() == before:  # two kills of three fall anywhere, the others into the work
        assert process.exitcode is None, 'the run ended by itself'
        time.sleep(0.005)
    process.join(rng.uniform(0, 0.1) if number % 3 == 0 else rng.uniform(0.1, 0.7))
    assert process.exitcode is None, 'the run ended by itself'
    os.kill(process.pid, signal.SIGKILL)
    process.join()
total = newest() + 20
for name in ('killed', 'undisturbed'):
    process = start(root + '/' + name, total)
    process.join()
    assert process.exitcode == 0
print(total)
"""


def test_a_run_killed_at_thirty_random_moments_ends_as_an_undisturbed_one(training_options, write_options, tmp_path):
    """It saves in every second iteration, so that many of the kills fall into a write, however busy the machine is."""
    opt = training_options(
        'kd',
        'mipkd',
        train={'ema_decay': 0.9, 'mipkd_opt': {'ae_weight': 0}},  # the one loss that depends on the total
        val={'val_freq': 100},
        logger={'save_checkpoint_freq': 2, 'keep_last': 3, 'print_freq': 50},
    )
    done = subprocess.run(
        [sys.executable, '-c', KILL_RUNS, str(write_options(opt)), str(tmp_path), '30'],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    total = int(done.stdout.splitlines()[-1])
    assert total >= 10 * 2 + 20  # a state at least before every third kill
    killed, undisturbed = (state(tmp_path / name, total) for name in ('killed', 'undisturbed'))
    assert len(killed.pop('history')) == 2  # as it was to go on for longer at first
    assert len(undisturbed.pop('history')) == 1
    assert same(killed, undisturbed)
    assert not list((tmp_path / 'killed').rglob('.*.part'))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, lambda file: file.write_bytes(b'')])
def test_a_damaged_state_is_passed_over_for_the_one_before(damage, training_options, write_options, tmp_path, capsys):
    file = write_options(training_options('kd'))
    assert main(['-opt', str(file)]) == 0
    undisturbed = state(tmp_path, 4)
    damage(experiment(tmp_path) / 'training_states' / '4.state')
    capsys.readouterr()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert '4.state is not a checkpoint' in (said := capsys.readouterr().err)
    assert 'going back to the training state before it' in said
    assert same(state(tmp_path, 4), undisturbed)


def test_a_named_state_that_is_damaged_is_an_error(training_options, write_options, tmp_path, capsys):
    (tmp_path / 'mine.state').write_bytes(b'PK')
    file = write_options(training_options(path={'resume_state': str(tmp_path / 'mine.state')}))
    assert main(['-opt', str(file)]) == 2
    assert 'path:resume_state: ' in (error := capsys.readouterr().err)
    assert 'mine.state' in error
    assert not experiment(tmp_path).exists()


def test_the_last_and_the_best_are_kept(training_options, write_options, tmp_path):
    opt = training_options(train={'total_iter': 8, 'optim_g': {'lr': 0.05}}, logger={'keep_last': 2})
    assert main(['-opt', str(write_options(opt))]) == 0
    folder = experiment(tmp_path)
    assert [file.stem for file in Run(folder).numbered_states()] == ['8', '6']
    assert {file.name for file in (folder / 'models').iterdir()} == {
        'net_g_6.pth',
        'net_g_8.pth',
        'net_g_best.pth',
        'net_g_latest.pth',
    }
    validations = json.loads((folder / 'validations.json').read_text())
    best = max(validations, key=lambda entry: entry['psnr'])['iter']
    record = state(tmp_path, 8)['best_metric_results']['waves-val']['psnr']
    assert record['iter'] == best
    if (checkpoint := folder / 'models' / f'net_g_{best}.pth').exists():
        assert same(load_file(folder / 'models' / 'net_g_best.pth'), load_file(checkpoint))


def trained(processes: int, file: Path, capfd, *arguments: object) -> tuple[int, str]:
    """The exit code of a training, here or under torchrun, and what it said."""
    capfd.readouterr()
    if processes == 1:
        return main(['-opt', *map(str, (file, *arguments))]), capfd.readouterr().err
    command = launch(processes, TRAIN, '--launcher', 'pytorch', '-opt', file, *arguments)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize('processes', [1, 2])
def test_a_validation_that_fails_costs_no_iteration(processes, training_options, write_options, tmp_path, capfd):
    """An image too small for SSIM, found no earlier, as the scan is off; the second, so that another process has it."""
    small = tmp_path / 'small'
    write_pairs([('a', smooth_image(48, 48, 0)), ('b', smooth_image(8, 8, 0))], small, [2])
    metrics = {'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}
    opt = training_options(train={'total_iter': 5}, val={'val_freq': 3, 'metrics': metrics})
    opt['logger']['save_checkpoint_freq'] = 100
    folders = {name: opt['datasets']['val'][name] for name in ('dataroot_gt', 'dataroot_lq')}
    opt['datasets']['val'] |= {'scan': False, 'dataroot_gt': str(small / 'HR'), 'dataroot_lq': str(small / 'LR_x2')}
    exit_code, said = trained(processes, write_options(opt), capfd)
    assert exit_code == (4 if processes == 1 else 1)
    assert 'small/HR/b.png cannot be measured by ssim: an image of 8 x 8 is smaller than the window of 11.' in said
    assert not re.findall(r'File ".*mipkd_sr', said)  # torchrun has a traceback of its own
    assert state(tmp_path, 3)['validations'] == []
    opt['datasets']['val'] |= folders
    file = write_options(opt)
    for root, resume in ((tmp_path / 'undisturbed', []), (tmp_path, ['--auto_resume'])):
        assert trained(processes, file, capfd, '--root', root, *resume)[0] == 0
    assert [entry['iter'] for entry in state(tmp_path, 5)['validations']] == [3, 5]
    went_on, undisturbed = state(tmp_path, 5), state(tmp_path / 'undisturbed', 5)
    assert len(went_on.pop('history')) == 2  # as the validation set is another one
    assert len(undisturbed.pop('history')) == 1
    assert same(went_on, undisturbed)


@pytest.mark.parametrize(('iteration', 'workers'), [(1, 0), (4, 1)])
def test_an_image_that_one_of_two_processes_cannot_read_costs_no_iteration(
    iteration, workers, training_options, write_options, tmp_path
):
    """Of eight images, one a process and iteration; the second process reads the bad one."""
    images = ((f'wave{i}', smooth_image(48, 48, i)) for i in range(8))
    write_pairs(images, tmp_path / 'own', [2])
    opt = training_options(train={'total_iter': 10}, logger={'save_checkpoint_freq': 100})
    opt.pop('val')
    folders = {'dataroot_gt': str(tmp_path / 'own/HR'), 'dataroot_lq': str(tmp_path / 'own/LR_x2')}
    opt['datasets']['train'] |= {**folders, 'scan': False, 'batch_size_per_gpu': 1, 'num_worker_per_gpu': workers}
    ((_, index),) = list(StreamSampler(8, 1, 1, 10, opt['manual_seed'], rank=1, world_size=2))[iteration - 1]
    (tmp_path / f'own/HR/wave{index}.png').write_text('hello')
    command = launch(2, TRAIN, '--launcher', 'pytorch', '-opt', write_options(opt))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 2, done.stderr
    assert not re.findall(r'File ".*mipkd_sr', done.stderr)
    assert sum(f'own/HR/wave{index}.png cannot be read: ' in error for error in errors) == (2 if iteration == 1 else 1)
    if iteration > 1:
        assert sum(f'iteration {iteration - 1} has been saved' in error for error in errors) == 1
    assert states_in(experiment(tmp_path)) == ([str(iteration - 1)] if iteration > 1 else [])


def test_a_process_that_is_stopped_holds_the_others_for_as_long_as_the_options_say(
    training_options, write_options, tmp_path
):
    opt = endless(training_options, 'kd') | {'dist_params': {'timeout': 0.1}}
    command = launch(2, TRAIN, '-opt', write_options(opt), '--launcher', 'pytorch')
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for_iteration(process, 5)
    ranks = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=True)
    held = int(ranks.stdout.split()[-1])
    os.kill(held, signal.SIGSTOP)
    try:
        assert process.stderr
        said = ''
        for line in process.stderr:
            said += line
            if line.startswith('error: '):
                break
    finally:
        os.kill(held, signal.SIGKILL)
        process.communicate(timeout=300)
    assert re.fullmatch(
        r'error: process \d: another process has ended, or has not answered for 0.1 minutes \(dist_params:timeout\); '
        'see what it said.\n',
        line,
    ), said


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    file = tmp_path / 'net.pth'
    save_atomically({'a': 1}, file)
    monkeypatch.setattr('os.fsync', lambda number: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(OSError, match='No space') as caught:
        save_atomically({'a': 2}, file)
    assert caught.value.filename == str(file)
    assert load_file(file) == {'a': 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_read_only_folder_is_named_by_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    """There a removal fails, too, even of what is not there."""

    def read_only(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, 'Read-only file system', str(path))

    monkeypatch.setattr(Path, 'write_text', read_only)
    monkeypatch.setattr(Path, 'unlink', read_only)
    with pytest.raises(OSError, match='Read-only') as caught, atomic_write(tmp_path / 'plan.json') as part:
        part.write_text('{}')
    assert caught.value.filename == str(tmp_path / 'plan.json')


def test_a_full_disk_ends_the_run_in_one_sentence_and_keeps_the_last_state(training_options, write_options, tmp_path):
    """The limit on a file's size stands in for the disk's: the write fails half-way in the same place."""
    file = write_options(training_options('kd'))
    assert main(['-opt', str(file)]) == 0
    undisturbed = state(tmp_path, 4)
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    before = sorted((experiment(tmp_path) / 'training_states').iterdir())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        [sys.executable, TRAIN, '-opt', str(file), '--auto_resume'],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode == 4
    (error,) = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert '4.state: File too large; put it right, and go on with --auto_resume.' in error
    assert sorted((experiment(tmp_path) / 'training_states').iterdir()) == before
    assert not list(experiment(tmp_path).rglob('.*.part'))
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(state(tmp_path, 4), undisturbed)


def wait_for_iteration(process: subprocess.Popen, number: int) -> None:
    assert process.stderr
    for line in process.stderr:
        if f'iter {number}/' in line:
            return
    pytest.fail('the run ended before that iteration')


def endless(training_options, *objectives):
    opt = training_options(
        *objectives, train={'total_iter': 100_000}, logger={'save_checkpoint_freq': 100_000, 'print_freq': 1}
    )
    opt.pop('val')
    return opt


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_goes_on(number, training_options, write_options, tmp_path):
    opt = endless(training_options)
    command = [sys.executable, TRAIN, '-opt', str(write_options(opt))]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for_iteration(process, 5)
    process.send_signal(number)
    process.communicate(timeout=300)
    assert process.returncode == 128 + number
    (state_file,) = Run(experiment(tmp_path)).numbered_states()
    done = int(state_file.stem)
    assert 5 <= done < 100_000
    opt['train']['total_iter'] = done + 2
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 0
    assert state(tmp_path, done + 2)['iter'] == done + 2


SIGNALLED = """
import glob, multiprocessing, os, signal, sys, time
import torch
from mipkd_sr.train import main

torch.set_num_threads(1)
file, root, what = sys.argv[1:]

def run(root):
    os.setsid()
    sys.exit(main(['-opt', file, '--root', root]))

for number in range(5):
    folder = f'{root}/{number}'
    process = multiprocessing.get_context('fork').Process(target=run, args=(folder,))
    process.start()
    while not any('iter 5/' in open(log).read() for log in glob.glob(f'{folder}/experiments/tiny/*.log')):
        assert process.exitcode is None, 'the run ended by itself'
        time.sleep(0.02)
    time.sleep(0.01 * number)
    if what == 'group':
        os.killpg(process.pid, signal.SIGTERM)
    else:
        children = open(f'/proc/{process.pid}/task/{process.pid}/children').read().split()
        os.kill(int(children[number % len(children)]), signal.SIGKILL)
    process.join()
    print(process.exitcode, flush=True)
"""


@pytest.mark.parametrize(('what', 'exit_code'), [('group', 143), ('reader', 4)])
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='finds processes in Linux /proc')
def test_signals_to_those_that_read_images_lose_nothing(what, exit_code, training_options, write_options, tmp_path):
    """SIGTERM to the whole group, as from a cluster, or SIGKILL to one reader, as from a system without memory."""
    opt = endless(training_options)
    opt['datasets']['train']['num_worker_per_gpu'] = 2
    command = [sys.executable, '-c', SIGNALLED, str(write_options(opt)), str(tmp_path), what]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert codes == [str(exit_code)] * 5
    saved = [states_in(experiment(tmp_path / str(number))) for number in range(5)]
    assert all(len(states) == 1 and int(states[0]) >= 5 for states in saved)
    if what == 'reader':
        said = re.findall(
            r'error: A process that reads images was killed(?: \(Killed\))?, perhaps for want of memory; '
            r'iteration ([\d,]+) has been saved: lower datasets:train:num_worker_per_gpu',
            done.stderr,
        )
        assert [[number.replace(',', '')] for number in said] == saved


@pytest.mark.parametrize('what', ['group', 'reader'])
def test_signals_to_those_that_read_under_torchrun_lose_nothing(what, training_options, write_options, tmp_path):
    opt = endless(training_options, 'kd')
    opt['datasets']['train']['num_worker_per_gpu'] = 2
    command = launch(2, TRAIN, '-opt', write_options(opt), '--launcher', 'pytorch')
    pipes = {'stderr': subprocess.PIPE, 'stdout': subprocess.PIPE}
    process = subprocess.Popen(command, env=ENVIRONMENT, text=True, start_new_session=True, **pipes)
    wait_for_iteration(process, 5)
    if what == 'group':
        os.killpg(process.pid, signal.SIGTERM)
    else:
        ranks = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=True)
        readers = subprocess.run(['pgrep', '-P', ranks.stdout.split()[-1]], capture_output=True, text=True, check=True)
        os.kill(int(readers.stdout.split()[0]), signal.SIGKILL)
    said, errors = process.communicate(timeout=300)
    (number,) = states_in(experiment(tmp_path))
    assert int(number) >= 5
    assert not re.findall(r'File ".*mipkd_sr', errors)
    if what == 'group':
        assert re.findall(r'stopped by SIGTERM after iteration (\d+)', said) == [number] * 2
    else:
        assert errors.count(f'iteration {int(number):,} has been saved') == 2


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_processes_under_torchrun_stop_after_the_same_iteration(number, training_options, write_options, tmp_path):
    opt = endless(training_options, 'kd')
    command = launch(2, TRAIN, '-opt', write_options(opt), '--launcher', 'pytorch')
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_iteration(process, 5)
    process.send_signal(number)  # torchrun passes it on
    said, _ = process.communicate(timeout=300)
    (state_file,) = Run(experiment(tmp_path)).numbered_states()
    name = signal.Signals(number).name
    stops = re.findall(rf'stopped by {name} after iteration (\d+)', said)
    assert stops == [state_file.stem] * 2


def test_a_failed_process_is_started_again_by_torchrun_and_goes_on(training_options, write_options, tmp_path):
    opt = training_options('kd', train={'total_iter': 400}, logger={'save_checkpoint_freq': 5, 'print_freq': 5})
    opt.pop('val')
    undisturbed = tmp_path / 'undisturbed'
    command = launch(2, TRAIN, '-opt', write_options(opt), '--launcher', 'pytorch')
    done = subprocess.run([*command, '--root', str(undisturbed)], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [command[0], *command[1:3], '--max-restarts=1', *command[3:]]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for_iteration(process, 30)
    workers = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=True)
    subprocess.run(['kill', '-KILL', workers.stdout.split()[-1]], check=True)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert 'Going on from' in said
    assert same(state(tmp_path, 400), state(undisturbed, 400))
    assert len(list((tmp_path / 'experiments').iterdir())) == 1


def states_in(folder: Path) -> list[str]:
    return [file.stem for file in Run(folder).numbered_states()]


def test_going_back_puts_the_abandoned_states_away_and_the_new_line_goes_on(training_options, write_options, tmp_path):
    """Back from 10 to 4; with keep_last 2 the new 6 stays, and --auto_resume takes it."""
    opt = training_options(train={'total_iter': 10, 'optim_g': {'lr': 0.01}}, logger={'keep_last': 4})
    assert main(['-opt', str(write_options(opt))]) == 0
    folder = experiment(tmp_path)
    before = {
        file.name: file.read_bytes() for file in folder.rglob('*.*') if file.suffix in ('.state', '.pth', '.json')
    }
    opt['path']['resume_state'] = str(folder / 'training_states' / '4.state')
    opt['train'] |= {'total_iter': 6}
    opt['logger']['keep_last'] = 2
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    assert states_in(folder) == ['6', '4']
    (aside,) = folder.glob('abandoned_*')
    assert states_in(aside) == ['10', '8', '6']
    logs = ''.join(log.read_text() for log in folder.glob('train_*.log'))
    assert f'to the iterations 6, 8, 10, is now in {aside}' in logs
    moved = {file.name: file.read_bytes() for file in aside.rglob('*.*')}
    assert {'10.state', 'net_g_10.pth', 'net_g_best.pth', 'net_g_latest.pth', 'validations.json'} <= moved.keys()
    assert all(before[name] == content for name, content in moved.items())
    record = state(tmp_path, 6)
    assert [entry['iter'] for entry in record['validations']] == [2, 4, 6]
    best = record['best_metric_results']['waves-val']['psnr']['iter']
    assert same(load_file(folder / 'models' / 'net_g_best.pth'), load_file(folder / 'models' / f'net_g_{best}.pth'))
    assert main(['-opt', str(file), '--auto_resume', '--force_yml', 'train:total_iter=8']) == 0
    assert states_in(folder) == ['8', '6']
    assert len(list(folder.glob('abandoned_*'))) == 1


def test_a_state_from_elsewhere_leaves_nothing_of_the_run_that_stood_there(training_options, write_options, tmp_path):
    opt = training_options()
    assert main(['-opt', str(write_options(opt)), '--root', str(tmp_path / 'other')]) == 0
    assert main(['-opt', str(write_options(opt))]) == 0
    opt['path']['resume_state'] = str(experiment(tmp_path / 'other') / 'training_states' / '2.state')
    opt['train']['total_iter'] = 3
    assert main(['-opt', str(write_options(opt))]) == 0
    (aside,) = experiment(tmp_path).glob('abandoned_*')
    assert states_in(aside) == ['4', '2']
    assert states_in(experiment(tmp_path)) == ['3']


def test_damaged_states_are_not_counted_among_those_that_are_kept(
    training_options, write_options, tmp_path, monkeypatch
):
    """The disk spoils states 6 and 8 while the run goes on: 2 and 4 stay until there are two newer ones."""
    save = run_files.save_atomically

    def spoil_some(content: object, file: Path) -> None:
        save(content, file)
        if file.name in ('6.state', '8.state'):
            flip_a_bit(file)

    monkeypatch.setattr(run_files, 'save_atomically', spoil_some)
    opt = training_options(train={'total_iter': 10}, logger={'keep_last': 2})
    opt.pop('val')
    assert main(['-opt', str(write_options(opt))]) == 0
    assert states_in(experiment(tmp_path)) == ['10', '8', '6', '4']


def test_auto_resume_begins_over_in_no_folder_that_has_a_student(training_options, write_options, tmp_path, capsys):
    opt = training_options()
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    folder = experiment(tmp_path)
    best = (folder / 'models' / 'net_g_best.pth').read_bytes()
    states = Run(folder).numbered_states()
    for each in states:
        truncate(each)
    assert main(['-opt', str(file), '--auto_resume']) == 2
    assert 'none of the 2 training states in' in capsys.readouterr().err
    assert (folder / 'models' / 'net_g_best.pth').read_bytes() == best
    for each in states:
        each.unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    (aside,) = (tmp_path / 'experiments').glob('tiny_archived_*')
    assert (aside / 'models' / 'net_g_best.pth').read_bytes() == best
    assert states_in(folder) == ['4', '2']


HOLD = """
import fcntl, sys
with open(sys.argv[1], 'a+b') as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print('mine', flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize('resume', [[], ['--auto_resume']])
def test_a_second_run_of_the_same_name_touches_nothing(resume, training_options, write_options, tmp_path, capsys):
    """The lock dies with its process, however that ends."""
    file = write_options(training_options())
    assert main(['-opt', str(file)]) == 0
    folder = experiment(tmp_path)
    before = sorted(folder.rglob('*'))
    command = [sys.executable, '-c', HOLD, str(folder / '.run.lock')]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b'mine\n'
    capsys.readouterr()
    assert main(['-opt', str(file), *resume]) == 5
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert f'name: {folder} belongs to a run that is going on (process {os.getpid()} on ' in error
    assert sorted(folder.rglob('*')) == before
    holder.kill()
    holder.communicate()
    assert main(['-opt', str(file), *resume]) == 0


def test_a_second_test_of_the_same_name_touches_nothing(write_options, pairs, tmp_path, monkeypatch):
    """The second begins while the first measures."""
    opt = {
        'name': 'tables',
        'scale': 2,
        'num_gpu': 0,
        'datasets': {'test': {'name': 'waves', **{f'dataroot_{a}': str(pairs / b) for a, b in FOLDERS.items()}}},
        'networks': {'bicubic': {'network': {'type': 'Bicubic', 'upscale': 2}}},
        'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 2}}},
    }
    file, results, others = write_options(opt), tmp_path / 'results', []
    measure = mipkd_sr.test.test_networks

    def begin_another(*arguments: object) -> object:
        before = sorted(results.rglob('*'))
        command = [sys.executable, '-m', 'mipkd_sr.test', '-opt', str(file)]
        others.append(subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True))
        assert sorted(results.rglob('*')) == before
        return measure(*arguments)

    monkeypatch.setattr(mipkd_sr.test, 'test_networks', begin_another)
    assert mipkd_sr.test.main(['-opt', str(file)]) == 0
    (other,) = others
    assert other.returncode == 5
    holder = re.escape(f'{results / "tables"} belongs to a run that is going on (process {os.getpid()} on ')
    assert re.fullmatch(rf'error: .*name: {holder}.*\); wait for it, or give another name\.\n', other.stderr)
    assert (results / 'tables' / 'table.md').exists()
    assert list(results.iterdir()) == [results / 'tables']


@pytest.mark.parametrize('damage', ['flip', 'sidecar'])
def test_a_flipped_bit_in_a_teacher_is_refused_or_harmless(damage, teacher_file, tmp_path):
    """A file of PyTorch's own checksums, and one of the old format with sha256sum's beside it."""
    file, content = tmp_path / 'teacher.pth', load_file(teacher_file)
    torch.save(content, file, _use_new_zipfile_serialization=damage == 'flip')
    if damage == 'sidecar':
        write_digest(file)
    whole, rng, refused = file.read_bytes(), random.Random(5), list[str]()
    for _ in range(200):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(spoilt)
        try:
            assert same(load_file(file), content)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert all(error.startswith(f'{file} is not a checkpoint that can be loaded safely (') for error in refused)


@pytest.mark.parametrize('sink', ['tensorboard', 'log'])
@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full, a disk that is always full')
def test_a_log_that_cannot_be_written_is_given_up_and_the_run_goes_on(
    sink, training_options, write_options, tmp_path, monkeypatch, capfd
):
    from tensorboard.summary.writer.record_writer import RecordWriter

    writes = []

    def fail_at_the_third(self: RecordWriter, data: bytes) -> None:
        writes.append(data)
        if len(writes) > 2:
            raise OSError(28, 'No space left on device')

    if sink == 'tensorboard':
        monkeypatch.setattr(RecordWriter, 'write', fail_at_the_third)
    else:
        monkeypatch.setattr('mipkd_sr.runtime.log._LogFile._open', lambda self: open('/dev/full', 'w'))  # noqa: SIM115
    opt = training_options('kd', logger={'use_tb_logger': True}, train={'total_iter': 6})
    warnings: list[str] = []
    monkeypatch.setattr(get_root_logger(), 'warning', warnings.append)
    capfd.readouterr()
    assert main(['-opt', str(write_options(opt))]) == 0
    name = {'tensorboard': 'TensorBoard', 'log': 'The log'}[sink]
    assert len([text for text in warnings if text.startswith(f'{name} is off from here on: ')]) == 1
    assert 'No space left' not in capfd.readouterr().err
    assert states_in(experiment(tmp_path)) == ['6', '4', '2']


def test_a_file_that_was_saved_without_checksums_loads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'params': torch.arange(3)}, tmp_path / 'without.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_file(tmp_path / 'without.pth'), {'params': torch.arange(3)})


def log_of(folder: Path) -> str:
    """The newest log of the run."""
    return max(experiment(folder).glob('train_*.log'), key=lambda file: file.stat().st_mtime_ns).read_text()


def test_options_that_differ_from_the_states_are_told_and_taken(training_options, write_options, tmp_path):
    """Steps 1 to 4 at 1e-3, halved after 3; then as at a lower rate, quartered after 3, and with other numbers."""
    assert main(['-opt', str(write_options(training_options('kd', train={'ema_decay': 0.9})))]) == 0
    before = state(tmp_path, 4)['optimizers'][0]
    assert before['param_groups'][0]['lr'] == 5e-4
    optim = {'type': 'Adam', 'lr': 4e-4, 'betas': [0.8, 0.99], 'weight_decay': 1e-6}
    train = {'ema_decay': 0.8, 'total_iter': 6, 'optim_g': optim, 'scheduler': {'gamma': 0.25}}
    opt = training_options('kd', train={**train, 'pixel_opt': {'loss_weight': 0.5}})
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 0
    after = state(tmp_path, 6)
    group = after['optimizers'][0]['param_groups'][0]
    assert (group['lr'], group['initial_lr'], *group['betas'], group['weight_decay']) == (1e-4, 4e-4, 0.8, 0.99, 1e-6)
    assert after['optimizers'][0]['state'][0]['step'] == before['state'][0]['step'] + 2 == 6  # its moments were kept
    assert re.findall(
        r'([\w:]+) is (.*) from here on; the training state was trained with (.*)\n', log_of(tmp_path)
    ) == [
        ('train:total_iter', '6', '4'),
        ('train:optim_g:lr', '0.0004', '0.001'),
        ('train:optim_g:betas', '[0.8, 0.99]', '[0.9, 0.99]'),
        ('train:optim_g:weight_decay', '1e-06', 'None'),
        ('train:scheduler:gamma', '0.25', '0.5'),
        ('train:pixel_opt:loss_weight', '0.5', '1.0'),
        ('train:ema_decay', '0.8', '0.9'),
    ]


def test_a_validation_that_measures_otherwise_is_told_and_has_a_best_of_its_own(
    training_options, write_options, tmp_path
):
    assert main(['-opt', str(write_options(training_options()))]) == 0
    kept = state(tmp_path, 4)
    (dataset,) = kept['best_metric_results']
    kept['best_metric_results'][dataset]['psnr']['val'] = 99.0  # as a metric that is kinder may give
    torch.save(kept, experiment(tmp_path) / 'training_states' / '4.state')
    opt = training_options(train={'total_iter': 6})
    opt['val']['metrics']['psnr']['test_y_channel'] = not opt['val']['metrics']['psnr'].get('test_y_channel', False)
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 0
    assert 'val:metrics:psnr:test_y_channel is ' in log_of(tmp_path)
    assert state(tmp_path, 6)['best_metric_results'][dataset]['psnr']['iter'] == 6
    same = training_options(train={'total_iter': 8})
    same['val']['metrics'] = opt['val']['metrics']
    assert main(['-opt', str(write_options(same)), '--auto_resume']) == 0
    assert 'val:metrics' not in log_of(tmp_path).rpartition('Going on from')[2]  # one log where both are of one second


@pytest.mark.parametrize('scheduler', ['milestones', 'cosine', 'warmup'])
def test_a_new_schedule_goes_on_as_if_it_had_been_so_from_the_start(
    scheduler, training_options, write_options, tmp_path
):
    train = {
        'milestones': {'scheduler': {'type': 'MultiStepLR', 'milestones': [2, 6], 'gamma': 0.1}},
        'cosine': {'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [8], 'eta_min': 1e-6}},
        'warmup': {'warmup_iter': 7},
    }[scheduler]
    opt = training_options()
    assert main(['-opt', str(write_options(opt))]) == 0
    opt['train'] |= {'total_iter': 6, **train}
    file = write_options(opt)
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert main(['-opt', str(file), '--root', str(tmp_path / 'from_the_start')]) == 0
    groups = [state(folder, 6)['optimizers'][0]['param_groups'] for folder in (tmp_path, tmp_path / 'from_the_start')]
    assert groups[0] == groups[1]
    schedules = [state(folder, 6)['schedulers'] for folder in (tmp_path, tmp_path / 'from_the_start')]
    assert schedules[0] == schedules[1]


def test_a_state_of_another_program_is_one_sentence(training_options, write_options, tmp_path, capsys):
    file = write_options(training_options())
    assert main(['-opt', str(file)]) == 0
    for number in (2, 4):
        content = {key: value for key, value in state(tmp_path, number).items() if key != 'options'}
        save_atomically(content, experiment(tmp_path) / 'training_states' / f'{number}.state')
    assert main(['-opt', str(file), '--auto_resume']) == 2
    assert "4.state: the training state is not one of mipkd_sr's; start a run from" in capsys.readouterr().err


def test_another_optimizer_is_one_sentence(training_options, write_options, tmp_path, capsys):
    opt = training_options()
    assert main(['-opt', str(write_options(opt))]) == 0
    opt['train'] |= {'optim_g': {'type': 'SGD', 'lr': 1e-3}, 'total_iter': 8}
    capsys.readouterr()
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert '4.state: the training state is of ' in error
    assert 'train:optim_g:type' in error
