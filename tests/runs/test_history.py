"""What a run was trained with over all its steps: its history, told on resume, and the run that a study takes."""

import shutil
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import LOSS_REGISTRY

from mipkd_sr.archs import build_network
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.options import importing
from mipkd_sr.runs import identity
from mipkd_sr.runs.identity import history, inputs, session, trained_with
from mipkd_sr.runs.run import Run
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.train import main
from tests.conftest import TEACHER, experiment

PACKAGE = """
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn


@LOSS_REGISTRY.register()
class {name}(nn.L1Loss):
    def forward(self, pred, target, weight=None):
        return {factor} * super().forward(pred, target)
"""


FOLDERS = {f'datasets:{phase}:dataroot_{kind}' for phase in ('train', 'val') for kind in ('gt', 'lq')}


def newest_log(folder: Path) -> str:
    return max(experiment(folder).glob('train_*.log'), key=lambda file: file.stat().st_mtime_ns).read_text()


def test_a_run_is_what_it_was_trained_with_over_all_its_steps(training_options, write_options, tmp_path):
    opt = training_options()
    file, run = write_options(opt), Run(experiment(tmp_path))
    for _ in range(2):  # the second has nothing to do, and changes nothing
        assert main(['-opt', str(file), '--auto_resume']) == 0
        (first,) = history(run)
    assert trained_with(run) == first
    assert (first.after, set(first.inputs)) == (
        0,
        {f'datasets:{d}:dataroot_{k}' for d in ('train', 'val') for k in ('gt', 'lq')},
    )
    changed = ['--auto_resume', '--force_yml', 'train:optim_g:lr=1e-5', 'train:total_iter=6']
    assert main(['-opt', str(file), *changed]) == 0
    assert [session.after for session in history(run)] == [0, 4]
    assert trained_with(run) is None
    state = load_file(run.state(6))
    assert [entry['digest'] for entry in state['history']] == [session.digest for session in history(run)]
    # a run that goes on elsewhere has the history of where it comes from
    opt['train'] |= {'total_iter': 8}
    elsewhere = write_options(opt | {'name': 'on', 'path': {'resume_state': str(run.state(6))}}, 'on.yml')
    assert main(['-opt', str(elsewhere)]) == 0
    assert [session.after for session in history(Run.named(tmp_path, 'on'))] == [0, 4, 6]
    # and one that goes back to before the change is as it was
    back = write_options(training_options(path={'resume_state': str(run.state(2))}), 'back.yml')
    assert main(['-opt', str(back)]) == 0
    assert history(run) == [first]


def test_a_run_without_a_history_is_what_its_kept_options_say(training_options, write_options, tmp_path):
    assert main(['-opt', str(write_options(training_options()))]) == 0
    run = Run(experiment(tmp_path))
    (first,) = history(run)
    for content in (None, 'null', '"x"', '[1]', '[{}]', '[{"after": 0, "digest": 1, "inputs": [], "code": ""}]'):
        run.history_file.unlink() if content is None else run.history_file.write_text(content)
        (kept,) = history(run)
        assert (kept.digest, kept.inputs, kept.code) == (first.digest, {}, '')
    assert history(Run(tmp_path / 'absent')) == []
    assert trained_with(Run(tmp_path / 'absent')) is None


class LossOfLater(LogitsKDLoss):
    """Logits KD of a version that takes one argument more."""

    def __init__(self, loss_weight: float = 1.0, squared: bool = False, more: int = 0) -> None:
        super().__init__(loss_weight, squared)


def test_an_argument_that_is_new_since_then_changes_no_run(training_options, write_options, tmp_path, monkeypatch):
    file = write_options(training_options('kd'))
    assert main(['-opt', str(file)]) == 0
    run = Run(experiment(tmp_path))
    before = trained_with(run).digest
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'LogitsKDLoss', LossOfLater)
    monkeypatch.setattr(identity, 'code_version', lambda: 'later')
    assert trained_with(run).digest != before
    wanted = session(load_options(file, True).data, 0).digest
    assert trained_with(run).digest == wanted
    run.state(4).unlink()
    assert main(['-opt', str(file), '--auto_resume', '--unchanged']) == 0
    assert [(one.after, one.digest) for one in history(run)] == [(0, wanted), (2, wanted)]  # of two versions
    assert trained_with(run).digest == wanted
    run.state(4).unlink()
    file = write_options(training_options('kd', train={'kd_opt': {'more': 1}}))  # which is another run
    assert main(['-opt', str(file), '--auto_resume', '--unchanged']) == 2


@pytest.fixture
def project(training_options, write_options, pairs, tmp_path, monkeypatch) -> Path:
    """A run's option file, with images, teacher and a loss of its own; it has been trained."""
    monkeypatch.setattr('sys.path', [*__import__('sys').path])
    monkeypatch.setattr(importing, '_asked_for', [])
    monkeypatch.setattr(importing, '_added', [])
    shutil.copytree(pairs, tmp_path / 'data')
    data = {'dataroot_gt': 'data/HR', 'dataroot_lq': 'data/LR_x2'}
    torch.save({'params': build_network(TEACHER).state_dict()}, tmp_path / 'teacher.pth')
    (tmp_path / 'told_sr.py').write_text(PACKAGE.format(name='ToldL1', factor=1))
    opt = training_options('kd', datasets={'train': data, 'val': data}, train={'own_opt': {'type': 'ToldL1'}})
    opt['path'] = {'pretrain_network_t': 'teacher.pth'}
    return write_options(opt | {'import': ['told_sr']})


def other_code(folder: Path) -> str:
    (folder / 'told_sr.py').write_text(PACKAGE.format(name='ToldL1', factor=50))
    return 'The code of told_sr has changed since the training state was saved'


def other_teacher(folder: Path) -> str:
    torch.manual_seed(7)
    torch.save({'params': build_network(TEACHER).state_dict()}, folder / 'teacher.pth')
    return 'What path:pretrain_network_t names has changed since the training state was saved'


def other_image(folder: Path) -> str:
    (folder / 'data' / 'HR' / 'wave1.png').write_bytes((folder / 'data' / 'HR' / 'wave2.png').read_bytes())
    return 'What datasets:train:dataroot_gt names has changed since the training state was saved'


def test_what_has_changed_besides_the_options_is_told_on_resume(project, tmp_path, capsys):
    try:
        assert main(['-opt', str(project)]) == 0
        run = Run(experiment(tmp_path))
        again = ['-opt', str(project), '--auto_resume']
        run.state(4).unlink()
        assert main([*again, '--unchanged']) == 0
        assert 'has changed' not in newest_log(tmp_path)
        for change in (other_code, other_teacher, other_image):
            said = change(tmp_path)
            before = history(run)
            assert main(again) == 0
            assert history(run) == before  # nothing was left to train
            run.state(4).unlink()
            capsys.readouterr()
            files = sorted(experiment(tmp_path).rglob('*'))
            assert main([*again, '--unchanged']) == 2
            assert '--unchanged: ' in capsys.readouterr().err
            assert sorted(experiment(tmp_path).rglob('*')) == files
            assert main(again) == 0
            assert said in newest_log(tmp_path)
            assert trained_with(run) is None
            assert [session.after for session in history(run)] == [0, 2]
    finally:
        LOSS_REGISTRY._obj_map.pop('ToldL1', None)


def test_a_digest_of_images_is_of_names_and_sizes_and_one_of_their_times(project, tmp_path):
    def found() -> dict[str, str]:
        data = {'dataroot_gt': 'data/HR', 'dataroot_lq': 'data/LR_x2'}
        return inputs({'datasets': {'train': data}, 'path': {}}, tmp_path)

    first, image = found(), tmp_path / 'data' / 'HR' / 'wave1.png'
    image.touch()
    names, times = found()['datasets:train:dataroot_gt'].split('/')
    assert names == first['datasets:train:dataroot_gt'].split('/')[0]
    assert times != first['datasets:train:dataroot_gt'].split('/')[1]
    image.rename(image.with_stem('another'))
    assert found()['datasets:train:dataroot_gt'].split('/')[0] != names
    assert found()['datasets:train:dataroot_lq'] == first['datasets:train:dataroot_lq']
    (tmp_path / 'data' / 'LR_x2' / 'lock.mdb').touch()  # which reading an LMDB touches
    assert found()['datasets:train:dataroot_lq'] == first['datasets:train:dataroot_lq']
    shutil.rmtree(tmp_path / 'data')
    assert found() == {}


def test_a_run_that_was_killed_before_its_students_file_has_not_finished(training_options, write_options, tmp_path):
    """As when the disk is full at that write."""
    file = write_options(training_options())
    run = Run(experiment(tmp_path))
    assert main(['-opt', str(file), '--force_yml', 'train:total_iter=2']) == 0
    assert run.is_finished(2)
    earlier = run.student().read_bytes()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    assert run.is_finished(4)
    torch.save(load_file(run.student()), run.student())  # the same, as another version may have written it
    assert run.is_finished(4)
    run.student().write_bytes(earlier)
    assert not run.is_finished(4)
    run.student(4).unlink()  # somebody needed the space: what is there counts
    assert run.is_finished(4)


@pytest.mark.parametrize('content', ['null', '5', '"x"', '{}', '[5]', '[{"iter": "x", "dataset": "d"}]', '['])
def test_files_of_a_run_that_somebody_has_changed_are_as_if_they_were_not_there(content, tmp_path):
    run = Run(tmp_path)
    for file in (run.validations_file, run.timing_file, run.history_file):
        file.write_text(content)
    assert (run.validations(), run.seconds_per_step(), history(run)) == ([], None, [])
