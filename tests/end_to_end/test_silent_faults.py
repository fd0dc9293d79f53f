"""What was wrong without a word, and what it says now."""

import pathlib
from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.distill.augmentations import AUGMENTATIONS, InvertibleAugmentation, RandomComposition
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.models import DistillModel, build_model
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file, save_atomically
from mipkd_sr.train import main
from tests.conftest import STUDENT, experiment


def error_of(capsys):
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    return error


class Elsewhere(torch.Tensor):
    """A tensor on a device that the reader of a file does not have."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_what_is_saved_is_on_the_cpu(tmp_path):
    content = {'networks': {'params': {'w': torch.arange(3.0).as_subclass(Elsewhere)}}, 'iter': 2}
    save_atomically(content, tmp_path / 'file.pth')
    found = torch.load(tmp_path / 'file.pth', weights_only=True)
    assert type(found['networks']['params']['w']) is torch.Tensor
    assert torch.equal(found['networks']['params']['w'], torch.arange(3.0))


def test_numbers_of_numpys_beside_the_weights_are_no_fault_and_what_is_refused_is_named(tmp_path):
    numbers = {'psnr': np.float64(32.5), 'iter': np.int64(7), 'best': np.bool_(True)}
    torch.save({'params': {'w': torch.ones(2)}, **numbers}, tmp_path / 'net.pth')
    content = load_file(tmp_path / 'net.pth')
    assert {name: content[name] for name in numbers} == numbers
    torch.save({'params': {}, 'when': pathlib.PurePosixPath('x')}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match=r'safely \(it holds a pathlib\S*PurePosixPath, which is neither a tensor nor'):
        load_file(tmp_path / 'net.pth')


def test_a_training_state_of_basicsrs_own_is_called_that(training_options, write_options, tmp_path, capsys):
    state = {'epoch': 1, 'iter': 2, 'optimizers': [{}], 'schedulers': [{'milestones': Counter([4])}]}
    torch.save(state, tmp_path / '2.state')
    opt = training_options(path={'resume_state': str(tmp_path / '2.state')})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert "2.state holds a state of BasicSR's own, without networks; start from" in error_of(capsys)


def test_weights_that_are_left_out_are_told_and_none_in_common_is_an_error(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(get_root_logger(), 'warning', said.append)
    deeper = build_network({**STUDENT, 'num_block': 3})
    torch.save({'params': build_network(STUDENT).state_dict()}, tmp_path / 'part.pth')
    load_weights(deeper, tmp_path / 'part.pth', strict=False)
    own = len(deeper.state_dict())
    assert f'{own - 4} of the {own} weights of StagedEDSR were loaded; left out' in said[0]
    assert 'body.2.conv1.weight' in said[0]
    torch.save({'params': {'model.0.weight': torch.zeros(3)}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other.pth holds another network than this StagedEDSR'):
        load_weights(deeper, tmp_path / 'other.pth', strict=False)


@pytest.mark.parametrize('option', ['kd_opt', 'mipkd_opt', 'pixel_opt'])
def test_a_negative_weight_is_refused(option, training_options, write_options, capsys):
    opt = training_options('kd', 'mipkd')
    name = 'feat_weight' if option == 'mipkd_opt' else 'loss_weight'
    opt['train'][option][name] = -1
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    assert f'train:{option}: {name} must not be negative, not -1' in error_of(capsys)


class Forgetful(InvertibleAugmentation):
    def apply(self, images):
        return images.roll(1, -1)

    def invert(self, images):
        return images


def test_an_augmentation_that_is_not_undone_is_refused(monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS._obj_map, 'Forgetful', Forgetful)
    with pytest.raises(ValueError, match='Forgetful is not undone by its invert'):
        RandomComposition({'HorizontalFlip': 0.5, 'Forgetful': 0.5})
    RandomComposition(dict.fromkeys(AUGMENTATIONS.keys() - {'Forgetful'}, 0.5))


class MappingLoss(nn.Module):
    def forward(self, sr, hr):
        return {'l_mine': (sr - hr).abs().mean()}


def test_a_pixel_loss_that_returns_a_mapping_is_told(monkeypatch, training_options, write_options, capsys):
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'MappingLoss', MappingLoss)
    opt = training_options()
    opt['train']['pixel_opt'] = {'type': 'MappingLoss'}
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    assert 'train:pixel_opt: MappingLoss returns a dict; let it return one tensor' in error_of(capsys)


QUITS = {
    'quits_1': ('import sys\nsys.exit(0)', 'quits_1 cannot be imported: SystemExit: 0', 'quits_1.py, line 2'),
    'quits_2': ("raise SystemExit('usage')", 'quits_2 cannot be imported: SystemExit: usage', 'quits_2.py, line 1'),
    'spoilt': ('x = 1\n\ndef f(:\n', 'spoilt cannot be imported: SyntaxError', 'spoilt.py, line 3'),
}


@pytest.mark.parametrize('name', QUITS)
def test_a_package_that_ends_the_program_is_an_error(name, training_options, write_options, tmp_path, capsys):
    source, *messages = QUITS[name]
    (tmp_path / f'{name}.py').write_text(source)
    assert main(['-opt', str(write_options(training_options(**{'import': [name]})))]) == 2
    error = error_of(capsys)
    assert all(message in error for message in messages), error
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize(
    ('text', 'message'), [('name: a\n\tscale: 2\n', 'a tab stands where'), ('a: 1\na: 2\n', 'stands twice')]
)
def test_yaml_that_is_wrong_is_to_be_corrected(text, message, tmp_path, capsys):
    (tmp_path / 'wrong.yml').write_text(text)
    assert main(['-opt', str(tmp_path / 'wrong.yml')]) == 2
    error = error_of(capsys)
    assert message in error
    assert error.endswith('correct it there.')


@MODEL_REGISTRY.register()
class SeesItsPart(DistillModel):
    """Its loss needs the LR images of what it is given."""

    def extra_losses(self, sr, gt):
        return {'l_lq': (nn.functional.avg_pool2d(sr, 2) - self.lq).square().mean()}


@pytest.mark.parametrize('method', ['dukd', 'mipkd', 'extra'])
def test_accumulation_is_the_larger_batch(method, training_options, write_options):
    """Each sample draws the same, and meets its own images."""
    mipkd = {'mipkd_opt': {'normalize': False, 'drop_probability': 0}} if method == 'mipkd' else {}
    opt = training_options(*([] if method == 'extra' else ['kd', method]), train={'accumulation_steps': 2, **mipkd})
    opt['model_type'] = 'SeesItsPart' if method == 'extra' else 'DistillModel'
    model = build_model(load_options(write_options(opt), True).training | {'rank': 0, 'dist': False, 'world_size': 1})
    start, gradients = deepcopy(model.step.state_dict()), []
    for count in (1, 2):
        model.step.load_state_dict(start)
        model.opt['train']['accumulation_steps'] = count
        model.feed_data(
            {
                'lq': torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
                'gt': torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)),
            }
        )
        model.optimize_parameters(1)
        gradients.append([p.grad.clone() for p in model.step.parameters() if p.grad is not None])
        assert len(model.lq) == 4
    for once, in_parts in zip(*gradients, strict=True):
        assert torch.allclose(once, in_parts, rtol=1e-4, atol=1e-7)


class Windowed(nn.Module):
    """Takes whole windows alone, as HAT does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, 1, 1)

    def forward(self, x):
        if x.shape[-1] % 8:
            raise RuntimeError('no whole windows')
        return nn.functional.pixel_shuffle(self.conv(x), 2)


def test_zoom_out_to_what_a_network_does_not_take_is_refused():
    with pytest.raises(
        ValueError, match=r'patches of 12 x 12; Windowed fails.*no whole windows.*set zoom_out to false'
    ):
        DUKDLoss().attach(Windowed(), None, 24, 2)
    DUKDLoss().attach(Windowed(), None, 32, 2)


class Misspelt(PairedImageDataset):
    def __getitem__(self, index):
        return npp.zeros(3)  # noqa: F821


def boom(img, img2, **_):
    raise RuntimeError('boom')


def test_a_bug_of_a_users_own_says_where_it_is_and_the_log_has_its_trace(
    monkeypatch, training_options, write_options, tmp_path, capsys
):
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, 'Misspelt', Misspelt)
    monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'boom', boom)
    line = Misspelt.__getitem__.__code__.co_firstlineno + 1
    opt = training_options(datasets={'train': {'type': 'Misspelt'}})
    assert main(['-opt', str(write_options(opt))]) == 4
    error = error_of(capsys)
    assert "cannot be read: NameError: name 'npp' is not defined" in error
    assert f'test_silent_faults.py, line {line})' in error
    (log,) = experiment(tmp_path).glob('train_*.log')
    assert 'return npp.zeros(3)' in log.read_text()
    metrics = {'mine': {'type': 'boom'}}
    assert main(['-opt', str(write_options(training_options(val={'metrics': metrics})))]) == 4
    error = error_of(capsys)
    line = boom.__code__.co_firstlineno + 1
    assert 'cannot be measured by mine: RuntimeError: boom (' in error
    assert f'test_silent_faults.py, line {line})' in error
