"""Classes of a user's own: what the package promises them, and what it says where they break the rules."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from mipkd_sr.archs.staged import part_of_context
from mipkd_sr.distill.objective import NetworkPass
from mipkd_sr.runtime.errors import RunError
from mipkd_sr.train import main

from .conftest import SCALE, experiment


@ARCH_REGISTRY.register()
class Normalised(nn.Module):
    """A student with BatchNorm: a network whose buffers matter."""

    def __init__(self, upscale: int = SCALE) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 3 * upscale**2, 3, 1, 1))
        self.upscale = upscale

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layers(x), self.upscale)


def test_the_moving_average_has_the_students_buffers(training_options, write_options, tmp_path):
    opt = training_options(network_g={'type': 'Normalised', 'upscale': SCALE}, train={'ema_decay': 0.999})
    del opt['network_g']['num_feat'], opt['network_g']['num_block']
    assert main(['-opt', str(write_options(opt))]) == 0
    file = torch.load(experiment(tmp_path) / 'models' / 'net_g_latest.pth')
    mean, average = (file[key]['layers.1.running_mean'] for key in ('params', 'params_ema'))
    assert mean.count_nonzero() == 8
    assert torch.equal(average, mean)
    assert file['params_ema']['layers.1.num_batches_tracked'] == 4
    assert not torch.equal(file['params']['layers.0.weight'], file['params_ema']['layers.0.weight'])


@DATASET_REGISTRY.register()
class DerivedDataset(PairedImageDataset):
    """A user's data set that reads pairs as BasicSR does."""


@DATASET_REGISTRY.register()
class OtherDataset(Dataset):
    """A user's data set with files, or none, that only it knows."""

    def __init__(self, opt: Any) -> None:
        self.opt = opt

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {'lq': torch.rand(3, 8, 8), 'gt': torch.rand(3, 16, 16), 'lq_path': f'{index}', 'gt_path': f'{index}'}


def test_the_files_of_a_data_set_that_derives_from_basicsrs_are_looked_at(
    pairs, training_options, write_options, tmp_path, capsys
):
    folder = tmp_path / 'LR'
    folder.mkdir()
    for file in (pairs / 'LR_x2').iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[: -20 if file.stem == 'wave1' else None])
    opt = training_options(datasets={'train': {'type': 'DerivedDataset', 'dataroot_lq': str(folder)}})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'LR/wave1.png cannot be used: it is truncated' in capsys.readouterr().err


def test_a_data_set_whose_files_are_not_looked_at_is_told(training_options, write_options, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), 'info', said.append)
    opt = training_options(datasets={'train': {'type': 'OtherDataset'}}, train={'total_iter': 1}, val=None)
    assert main(['-opt', str(write_options(opt))]) == 0
    (note,) = (text for text in said if 'not looked at' in text)
    assert note.startswith('datasets:train: its files are not looked at before the run, as OtherDataset derives from')


class Pair(NamedTuple):
    skip: Tensor
    size: tuple[int, int]


def test_a_context_of_any_nesting_is_cut_into_samples():
    skip, other = torch.rand(4, 3, 5, 5), torch.rand(4, 2)
    context = {'pair': Pair(skip, (5, 5)), 'list': [other, None, 'mode'], 'ordered': OrderedDict(a=skip), 'scale': 2.0}
    part = part_of_context(context, 4, 1, 3)
    assert torch.equal(part['pair'].skip, skip[1:3])
    assert part['pair'].size == (5, 5)
    assert torch.equal(part['list'][0], other[1:3])
    assert part['list'][1:] == [None, 'mode']
    assert torch.equal(part['ordered']['a'], skip[1:3])
    assert part['scale'] == 2.0


class Holder:
    """Something that may hold tensors where nobody looks."""


@pytest.mark.parametrize(
    ('context', 'found'),
    [
        ([torch.rand(3, 2)], r'a tensor of shape \(3, 2\)'),
        ({'mask': torch.rand(1, 4)}, r'a tensor of shape \(1, 4\)'),
        ((torch.tensor(1.0),), r'a tensor of shape \(\)'),
        ([Holder()], 'a Holder'),
        (torch.nn.Identity(), 'an? Identity'),
    ],
)
def test_a_context_that_cannot_be_cut_is_refused(context, found):
    features = {1: torch.rand(4, 2, 5, 5)}
    whole = NetworkPass(Normalised(), torch.rand(4, 3, 10, 10), features, context)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=f'Normalised: the context of a batch of 4 holds {found}; it must be made of'):
        whole.part(0, 2, with_features=True)
