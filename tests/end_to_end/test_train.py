"""The training command, end to end on tiny data."""

import math
import os
import re
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network as build_with_basicsr
from basicsr.models.sr_model import SRModel

from mipkd_sr.data import build_dataset
from mipkd_sr.data.stream import TrainingBatches
from mipkd_sr.models import build_model
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.train import main
from tests.conftest import METHODS, STUDENT, TEACHER, experiment, same, state


def weights(folder: Path, label: object = 'latest', key: str = 'params') -> dict[str, torch.Tensor]:
    return load_file(experiment(folder) / 'models' / f'net_g_{label}.pth')[key]


@pytest.mark.parametrize(('batch', 'total'), [(2, 4), (3, 5), (7, 3), (5, 1), (1, 11)])
def test_exactly_total_iter_steps_are_taken(batch, total, training_options, write_options, tmp_path, monkeypatch):
    """Five images: batches that do not divide them, that are larger than all, runs shorter than an epoch."""
    steps = []
    step = torch.optim.Adam.step

    def count(self: torch.optim.Adam, *arguments: object) -> object:
        steps.extend(['a step'] * (len(self.param_groups[0]['params']) > 1))  # not the trial of the arguments
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, 'step', count)
    opt = training_options(
        datasets={'train': {'batch_size_per_gpu': batch, 'dataset_enlarge_ratio': 3}}, train={'total_iter': total}
    )
    assert main(['-opt', str(write_options(opt))]) == 0
    assert len(steps) == total
    state = load_file(experiment(tmp_path) / 'training_states' / f'{total}.state')
    assert state['iter'] == total
    assert state['epoch'] == math.ceil(total * batch / 5) - 1


@pytest.mark.parametrize('method', METHODS)
def test_a_run_leaves_basicsrs_layout_and_a_student_that_plain_basicsr_loads(
    method, training_options, write_options, tmp_path
):
    opt = training_options(*METHODS[method], logger={'use_tb_logger': True}, train={'ema_decay': 0.9})
    assert main(['-opt', str(write_options(opt))]) == 0
    names = {file.name for file in (experiment(tmp_path) / 'models').iterdir()}
    assert names == {'net_g_2.pth', 'net_g_4.pth', 'net_g_best.pth', 'net_g_latest.pth'}
    assert {file.name for file in (experiment(tmp_path) / 'training_states').iterdir()} == {'2.state', '4.state'}
    assert (experiment(tmp_path) / 'options.yml').is_file()
    assert list((tmp_path / 'tb_logger' / 'tiny').iterdir())
    assert list(experiment(tmp_path).glob('train_tiny_*.log'))
    for key in ('params', 'params_ema'):
        plain = build_with_basicsr({**STUDENT, 'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3})
        plain.load_state_dict(weights(tmp_path, key=key), strict=True)
    assert not same(weights(tmp_path), weights(tmp_path, key='params_ema'))


def test_tensorboard_has_the_losses_under_their_own_names(training_options, write_options, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    opt = training_options('kd', 'mipkd', logger={'use_tb_logger': True})
    assert main(['-opt', str(write_options(opt))]) == 0
    events = EventAccumulator(str(tmp_path / 'tb_logger' / 'tiny'))
    events.Reload()
    tags = set(events.Tags()['scalars'])
    assert {f'losses/{name}' for name in ('l_pix', 'l_kd', 'l_feat', 'l_block', 'l_ae')} <= tags
    assert {'lr', 'mipkd/path_1', 'mipkd/l_feat_2'} <= tags
    assert {'metrics/waves-val/psnr', 'metrics/waves-val/psnr_to_teacher'} <= tags
    assert [event.step for event in events.Scalars('losses/l_pix')] == [1, 2, 3, 4]


@pytest.mark.parametrize('kind', ['EDSR', 'StagedEDSR'])
def test_plain_training_is_basicsrs_to_the_last_bit(kind, training_options, write_options, tmp_path):
    opt = training_options(
        network_g={'type': kind},
        train={'ema_decay': 0.9, 'ema_warmup': False},  # no warm-up: BasicSR's bends what comes after it
        datasets={'train': {'num_worker_per_gpu': 1}},
    )
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0

    opt = load_options(file, is_train=True).data
    opt.update(rank=0, world_size=1, dist=False, num_gpu=0)
    opt['path']['log'] = str(tmp_path)
    torch.manual_seed(0)
    ours = build_model(opt)
    opt['network_g'].update(type='EDSR', num_in_ch=3, num_out_ch=3)
    theirs = SRModel(opt)
    start = load_first_weights(file)
    theirs.net_g.load_state_dict(start)
    theirs.model_ema(0)
    assert ours.net_g.state_dict().keys() == start.keys()
    for iteration, batch in enumerate(TrainingBatches(build_dataset(opt, 'train'), opt, 1), 1):
        theirs.update_learning_rate(iteration)
        theirs.feed_data(batch)
        theirs.optimize_parameters(iteration)
    assert same(dict(theirs.net_g.state_dict()), dict(weights(tmp_path)))
    assert same(dict(theirs.net_g_ema.state_dict()), dict(weights(tmp_path, key='params_ema')))


def load_first_weights(file: Path) -> dict[str, torch.Tensor]:
    """The weights with which a run of this option file begins."""
    from mipkd_sr.runtime.seeding import seed_everything

    opt = load_options(file, is_train=True).data
    opt.update(rank=0, world_size=1, dist=False, num_gpu=0)
    seed_everything(opt['manual_seed'])
    return build_model(opt).net_g.state_dict()


def test_the_same_seed_gives_the_same_student_and_every_method_starts_alike(training_options, write_options, tmp_path):
    files = [write_options(training_options(*objectives), f'{name}.yml') for name, objectives in METHODS.items()]
    first, *others = [load_first_weights(file) for file in files]
    assert all(same(dict(first), dict(other)) for other in others)
    runs = []
    for _ in range(2):
        assert main(['-opt', str(files[-1])]) == 0
        runs.append(weights(tmp_path))
    assert same(dict(runs[0]), dict(runs[1]))


def test_an_earlier_experiment_of_the_same_name_is_archived_not_overwritten(training_options, write_options, tmp_path):
    file = write_options(training_options(train={'total_iter': 1}))
    assert main(['-opt', str(file)]) == 0
    (experiment(tmp_path) / 'mine.txt').write_text('kept')
    assert main(['-opt', str(file)]) == 0
    (aside,) = (tmp_path / 'experiments').glob('tiny_archived_*')
    assert (aside / 'mine.txt').read_text() == 'kept'
    assert not (experiment(tmp_path) / 'mine.txt').exists()


def test_a_finished_run_that_is_resumed_takes_no_step(training_options, write_options, tmp_path):
    file = write_options(training_options())
    assert main(['-opt', str(file)]) == 0
    before = weights(tmp_path)
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert same(dict(before), dict(weights(tmp_path)))


def test_debug_runs_under_another_name_and_logs_every_step(training_options, write_options, tmp_path):
    file = write_options(training_options(logger={'print_freq': 100}))
    assert main(['-opt', str(file), '--debug']) == 0
    (log,) = (tmp_path / 'experiments' / 'debug_tiny').glob('train_*.log')
    assert log.read_text().count('iter ') == 4
    assert not experiment(tmp_path).exists()


def test_a_state_of_another_run_is_refused(training_options, write_options, tmp_path, capsys):
    assert main(['-opt', str(write_options(training_options('kd')))]) == 0
    wider = write_options(training_options('kd', network_g={'num_feat': 10}))
    assert main(['-opt', str(wider), '--auto_resume']) == 2
    assert '4.state: the training state is of a run with other options' in capsys.readouterr().err


def test_pickled_code_is_refused(tmp_path):
    class Code:
        def __reduce__(self) -> tuple:
            return (os.system, ('true',))

    torch.save({'params': Code()}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'evil.pth is not a checkpoint that can be loaded safely'):
        load_file(tmp_path / 'evil.pth')


def before_training(training_options, write_options, tmp_path, **changes) -> tuple[str, bool]:
    """What the run says of the teacher, and whether it warns."""
    assert main(['-opt', str(write_options(training_options('kd', train={'total_iter': 1}, **changes)))]) == 0
    (log,) = experiment(tmp_path).glob('train_*.log')
    (line,) = re.findall(r'Before training, (.*)', log.read_text())
    return line, 'The teacher is no better than' in log.read_text()


def test_a_teacher_that_can_teach_nothing_is_warned_about(training_options, write_options, tmp_path):
    line, warned = before_training(training_options, write_options, tmp_path)
    assert re.fullmatch(r'psnr on waves-val: teacher [\d.]+, student [\d.]+, bicubic [\d.]+ dB', line)
    assert warned  # it has random weights


def test_a_good_teacher_is_not_warned_about(training_options, write_options, tmp_path):
    """Nearest-neighbour interpolation would do against a student that knows nothing; bicubic has to be beaten too."""
    good = tmp_path / 'good'
    opt = training_options(
        network_g=dict(TEACHER),
        train={'total_iter': 400, 'optim_g': {'lr': 3e-3}, 'scheduler': {'milestones': [300]}},
        val={'val_freq': 1000},
        logger={'save_checkpoint_freq': 1000, 'print_freq': 1000},
    )
    assert main(['-opt', str(write_options(opt, 'teacher.yml')), '--root', str(good)]) == 0
    path = {'pretrain_network_t': str(experiment(good) / 'models' / 'net_g_latest.pth')}
    line, warned = before_training(training_options, write_options, tmp_path, path=path)
    values = dict(re.findall(r'(\w+) ([\d.]+)(?:,| dB)', line))
    assert float(values['teacher']) > float(values['bicubic'])
    assert not warned


def test_the_option_file_that_a_run_keeps_gives_the_same_run(training_options, write_options, tmp_path):
    assert main(['-opt', str(write_options(training_options('kd', 'mipkd', 'dukd')))]) == 0
    first = state(tmp_path, 4)
    assert main(['-opt', str(experiment(tmp_path) / 'options.yml')]) == 0
    assert len(list((tmp_path / 'experiments').iterdir())) == 2  # the first is archived
    again = state(tmp_path, 4)
    assert same(again['networks'], first['networks'])
    assert same(again['optimizers'], first['optimizers'])
