"""Classes of a user's own: what the package promises them, and what it says where they break the rules."""

import random
import re
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from mipkd_sr.archs import build_network, check_output, check_staged, feature_shapes
from mipkd_sr.archs.staged import part_of_context
from mipkd_sr.distill.objective import NetworkPass
from mipkd_sr.evaluation.inference import prepare_network
from mipkd_sr.metrics import measure
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.options.forms import REQUIRED, Key, Section
from mipkd_sr.options.keys import NETWORK, OPTIMIZER
from mipkd_sr.options.registries import OPTIMIZER_REGISTRY, SCHEDULER_REGISTRY
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.train import main
from tests.conftest import NETWORKS, SCALE, experiment, merge, same


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
    said = capsys.readouterr().err
    assert 'LR/wave1.png' in said
    assert 'Truncated' in said


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
    part = part_of_context(context, 4, slice(1, 3))
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
        whole.of_samples(slice(2))


class Wrapped(nn.Module):
    """A network with stages, to be spoiled."""

    depth: Any = 4

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 3, 1, 1) for _ in range(4))
        self.last = nn.Conv2d(6, channels * SCALE**2, 3, 1, 1)

    def head(self, lq: Tensor) -> Any:
        feature = self.first(lq)
        return feature, feature

    def body(self, feature: Tensor, context: Any, start: int = 0, stop: int | None = None) -> Tensor:
        for block in self.blocks[start:stop]:
            feature = feature + block(feature).relu()
        return feature

    def tail(self, feature: Tensor, context: Any) -> Any:
        return F.pixel_shuffle(self.last(feature + context), SCALE)

    def forward(self, x: Tensor) -> Any:
        feature, context = self.head(x)
        return self.tail(self.body(feature, context), context)


class IgnoresStart(Wrapped):
    def body(self, feature: Tensor, context: Any, start: int = 0, stop: int | None = None) -> Tensor:
        return super().body(feature, context, 0, stop)


class IgnoresStop(Wrapped):
    def body(self, feature: Tensor, context: Any, start: int = 0, stop: int | None = None) -> Tensor:
        return super().body(feature, context, start)


class OneMoreSkip(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.interpolate(x, scale_factor=SCALE)


class TooDeep(Wrapped):
    depth = 6


class TooShallow(Wrapped):
    depth = 3


class NoNumber(Wrapped):
    depth = '4'


class Indexes(Wrapped):
    depth = 5

    def body(self, feature: Tensor, context: Any, start: int = 0, stop: int | None = None) -> Tensor:
        for number in range(start, self.depth if stop is None else stop):
            feature = self.blocks[number % 5](feature)
        return feature

    def forward(self, x: Tensor) -> Tensor:
        feature, context = self.head(x)
        return self.tail(self.body(feature, context, 0, 4), context)


class WritesIntoItsInput(Wrapped):
    def body(self, feature: Tensor, context: Any, start: int = 0, stop: int | None = None) -> Tensor:
        for block in self.blocks[start:stop]:
            feature += block(feature)
        return feature


class ContextOfTheBatch(Wrapped):
    def head(self, lq: Tensor) -> Any:
        feature = self.first(lq)
        return feature, [feature, torch.tensor(lq.shape[-2:])]  # two values, as many as samples

    def tail(self, feature: Tensor, context: Any) -> Any:
        return super().tail(feature, context[0])


class MixesSamples(ContextOfTheBatch):
    def head(self, lq: Tensor) -> Any:
        feature = self.first(lq)
        return feature, [feature - feature.mean()]


class NoPair(Wrapped):
    def head(self, lq: Tensor) -> Any:
        return self.first(lq)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.last(self.first(x)), SCALE)


class Tokens(NoPair):
    def head(self, lq: Tensor) -> Any:
        return self.first(lq).flatten(2), None


class OtherScale(Wrapped):
    def tail(self, feature: Tensor, context: Any) -> Any:
        return super().tail(feature, context)[..., 1:]


class Several(Wrapped):
    def tail(self, feature: Tensor, context: Any) -> Any:
        return [super().tail(feature, context)]


class StartsAsIdentity(IgnoresStart):
    """Its units do nothing at first, as where the last layer of a residual branch starts with zeros."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)


BROKEN = {
    IgnoresStart: 'the body of IgnoresStart does not run the units start to stop alone: .*depth is 4',
    IgnoresStop: 'the body of IgnoresStop does not run the units start to stop alone: .*depth is 4',
    StartsAsIdentity: 'the body of StartsAsIdentity does not run the units start to stop alone',
    OneMoreSkip: r'the forward of OneMoreSkip gives something else than tail\(body\(head\(lq\)\)\)',
    TooDeep: 'depth of TooDeep is 6, but its body does nothing after unit 4',
    TooShallow: 'depth of TooShallow is 3, but its body has more units',
    NoNumber: "depth of NoNumber is '4'; it must be the number of units",
    Indexes: r'the body of Indexes, of depth 5, fails after unit 4 \(IndexError: ',
    WritesIntoItsInput: 'the body of WritesIntoItsInput writes into the feature map that it is given, after unit 0',
    ContextOfTheBatch: r'the head of ContextOfTheBatch: the context of a batch of 1 holds a tensor of shape \(2,\)',
    MixesSamples: 'the head of MixesSamples makes something else of an image alone',
    NoPair: 'the head of NoPair returned a Tensor; it must return a pair: the first feature map, B x C x H x W',
    Tokens: r'the head of Tokens returned a feature map of shape \(2, 6, 64\) for 2 images; it must return a pair',
    Normalised: 'Normalised has no head, body, tail and depth',
}
NO_OUTPUT = {
    OtherScale: 'OtherScale turns LR images of 2 x 3 x 8 x 8 into 2 x 3 x 16 x 15; its output must have 2 times their',
    Several: 'Several returned a list; its forward must return SR images, one tensor',
}


@pytest.mark.parametrize(('kind', 'message'), BROKEN.items(), ids=lambda value: getattr(value, '__name__', ''))
def test_a_network_that_breaks_the_promise_is_told_so(kind, message):
    with pytest.raises(ValueError, match=f'{message}.*; logits KD and DUKD need no stages$'):
        check_staged(kind(), SCALE)


@pytest.mark.parametrize(('kind', 'message'), NO_OUTPUT.items(), ids=lambda value: getattr(value, '__name__', ''))
def test_an_output_that_is_not_one_tensor_of_the_right_size_is_told(kind, message):
    for check in (check_staged, lambda net, scale: check_output(net, scale, 8)):
        with pytest.raises(ValueError, match=message):
            check(kind(), SCALE)


@pytest.mark.parametrize('upscale', [2, 3, 4])
@pytest.mark.parametrize('name', NETWORKS)
def test_the_networks_here_keep_the_promise_and_are_left_as_they_were(name, upscale):
    net = build_network({'type': name, **NETWORKS[name], 'upscale': upscale}).train()
    before, states = deepcopy(net.state_dict()), (torch.get_rng_state(), random.getstate(), np.random.get_state()[1])
    check_staged(net)
    check_output(net, upscale, 12)
    assert same(dict(net.state_dict()), dict(before))
    assert net.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_networks_of_any_number_of_channels_are_probed(channels):
    net = Wrapped(channels)
    check_staged(net, SCALE)
    check_output(net, SCALE, 12)
    assert feature_shapes(net, [1, 4], 12) == {1: (6, 12, 12), 4: (6, 12, 12)}


def test_rounding_is_no_fault():
    class Reordered(Wrapped):
        """The same arithmetic in another order: as true, and not the same to the last bit."""

        def forward(self, x: Tensor) -> Tensor:
            feature, context = self.head(x)
            feature = self.body(feature, context)
            kernel = self.last.weight
            whole = F.conv2d(feature, kernel, self.last.bias, 1, 1) + F.conv2d(context, kernel, None, 1, 1)
            return F.pixel_shuffle(whole, SCALE)

    check_staged(Reordered(), SCALE)


class Fails(Wrapped):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def head(self, lq: Tensor) -> Any:
        raise self.error


@pytest.mark.parametrize('error', [RuntimeError('no'), AttributeError('no'), TypeError('no'), KeyError('no')])
def test_what_a_network_raises_while_it_is_probed_is_one_sentence(error):
    message = f'Fails fails: its head does not take LR images of 2 x 3 x 12 x 12 .{type(error).__name__}: .*no'
    with pytest.raises(ValueError, match=message):
        feature_shapes(Fails(error), [1], 12)


@pytest.mark.parametrize(('kind', 'key'), [(OneMoreSkip, 'network_g'), (TooDeep, 'network_t')])
def test_a_run_and_a_dry_run_refuse_them(kind, key, training_options, write_options, tmp_path, capsys):
    ARCH_REGISTRY._obj_map.setdefault(kind.__name__, kind)
    opt = training_options('kd', train={'own_opt': {'type': 'FitNetLoss', 'positions': 1}})
    opt[key] = {'type': kind.__name__}
    if key == 'network_t':
        torch.save({'params': kind().state_dict()}, tmp_path / 'teacher.pth')
        opt['path']['pretrain_network_t'] = str(tmp_path / 'teacher.pth')
    file = write_options(opt)
    for flags in ([], ['--dry_run']):
        assert main(['-opt', str(file), *flags]) == 2
        error = capsys.readouterr().err
        assert re.search(f'{key}: {BROKEN[kind]}', error), error
        assert not experiment(tmp_path).exists()
    opt['train']['own_opt'] = None
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 0  # logits KD needs no stages


def test_a_plain_network_of_another_scale_is_refused(training_options, write_options, capsys):
    ARCH_REGISTRY._obj_map.setdefault('OtherScale', OtherScale)
    opt = training_options()
    opt['network_g'] = {'type': 'OtherScale'}
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    assert 'network_g: OtherScale turns LR images of 2 x 3 x 8 x 8 into 2 x 3 x 16 x 15' in capsys.readouterr().err


@MODEL_REGISTRY.register()
class WithOwnOptions(DistillModel):
    own_options: ClassVar = {
        'network_d': NETWORK,
        'train:optim_d': OPTIMIZER,
        'train:gan': Section(
            {'weight': Key('float', 'Weight.', 0.1, minimum=0), 'start': Key('int', 'Step.', REQUIRED)}
        ),
        'mine': Key('str', 'Something.', 'as it was'),
    }


OWN = {
    'network_d': {'type': 'Normalised'},
    'train': {'optim_d': {'type': 'Adam', 'lr': 1e-3}, 'gan': {'start': 2}},
}
WRONG_OWN = {
    'a misspelt key': ({'train': {'gan': {'wieght': 1}}}, "train:gan:wieght: .*did you mean 'weight'"),
    'out of range': ({'train': {'gan': {'weight': -1}}}, 'train:gan:weight: must be at least 0, not -1'),
    'an argument': ({'train': {'optim_d': {'momentum': 1}}}, 'train:optim_d:momentum: is not a key'),
    'no such network': ({'network_d': {'type': 'Nosuch'}}, "network_d:type: there is no network 'Nosuch'"),
}


def test_a_model_class_may_have_options_of_its_own(training_options, write_options):
    opt = training_options(model_type='WithOwnOptions', **deepcopy(OWN))
    found = load_options(write_options(opt), is_train=True).data
    assert found['train']['gan'] == {'weight': 0.1, 'start': 2}
    assert found['mine'] == 'as it was'
    with pytest.raises(OptionError, match=r'network_d: is not a key that is known here'):
        load_options(write_options(opt | {'model_type': 'DistillModel'}), is_train=True)


@pytest.mark.parametrize(('changes', 'message'), WRONG_OWN.values(), ids=WRONG_OWN)
def test_they_are_checked_as_ours_are(changes, message, training_options, write_options):
    opt = training_options(model_type='WithOwnOptions', **merge(deepcopy(OWN), changes))
    with pytest.raises(OptionError, match=message):
        load_options(write_options(opt), is_train=True)


@DATASET_REGISTRY.register()
class SpeckledDataset(DerivedDataset):
    own_options: ClassVar = {'noise': Key('float', 'Standard deviation, of 255.', 10.0, minimum=0)}


def test_a_data_set_may_have_options_of_its_own(training_options, write_options):
    def load(**own: Any) -> Any:
        opt = training_options(datasets={'train': {'type': 'SpeckledDataset', **own}})
        return load_options(write_options(opt), is_train=True).data['datasets']['train']

    assert load()['noise'] == 10
    with pytest.raises(OptionError, match='datasets:train:noise: must be at least 0'):
        load(noise=-1)
    with pytest.raises(OptionError, match=r"datasets:train:niose: .*did you mean 'noise'"):
        load(niose=1)


@SCHEDULER_REGISTRY.register()
class HalvedLR(torch.optim.lr_scheduler.LRScheduler):
    """Halves the rate every ``period`` steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, period: int, last_epoch: int = -1) -> None:
        self.period = period
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [rate * 0.5 ** (self.last_epoch // self.period) for rate in self.base_lrs]


@OPTIMIZER_REGISTRY.register()
class SlowSGD(torch.optim.SGD):
    """Somebody's optimizer."""


@pytest.mark.parametrize(
    ('scheduler', 'rate'),
    [
        ({'type': 'HalvedLR', 'period': 1}, 0.5**3),
        ({'type': 'CosineAnnealingLR', 'T_max': 3}, 0.0),
        ({'type': 'StepLR', 'step_size': 2, 'gamma': 0.1}, 0.1),
    ],
)
def test_schedules_and_optimizers_by_registry_and_torchs(scheduler, rate, training_options, write_options, tmp_path):
    opt = training_options(train={'optim_g': {'type': 'SlowSGD', 'lr': 0.01}})
    opt['train']['optim_g'] = {'type': 'SlowSGD', 'lr': 0.01}
    opt['train']['scheduler'] = scheduler
    assert main(['-opt', str(write_options(opt))]) == 0
    found = torch.load(experiment(tmp_path) / 'training_states' / '4.state')['optimizers'][0]
    assert found['param_groups'][0]['lr'] == pytest.approx(0.01 * rate, abs=1e-9)


def test_what_has_basicsrs_suffix_is_found_without_it(training_options, write_options):
    ARCH_REGISTRY._obj_map.setdefault('Suffixed_basicsr', Normalised)
    opt = training_options()
    opt['network_g'] = {'type': 'Suffixed', 'upscale': SCALE}
    assert load_options(write_options(opt), is_train=True).data['network_g']['type'] == 'Suffixed'
    assert isinstance(build_network(opt['network_g']), Normalised)


@MODEL_REGISTRY.register()
class WithHooks(DistillModel):
    """A model with every hook overridden, and a count of its own."""

    def init_training_settings(self) -> None:
        super().init_training_settings()
        self.count = torch.zeros(())

    def extra_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        return {'l_pix': 0.1 * (sr - gt).square().mean(), 'l_own': sr.mean()}

    def optimize_parameters(self, current_iter: int) -> None:
        super().optimize_parameters(current_iter)
        self.count += 1

    def extra_state(self) -> dict[str, Any]:
        return {'count': self.count}

    def load_extra_state(self, state: Any) -> None:
        self.count = state['count']

    def infer(self, net: nn.Module, lq: Tensor) -> Tensor:
        return net(lq) * 0 + 0.5


def grey_psnr(pairs: Path) -> float:
    """PSNR of a grey image against the validation set's."""
    values = []
    for file in sorted((pairs / 'HR').iterdir()):
        hr = cv2.imread(str(file))
        opt = {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}
        values.append(measure(opt, np.full_like(hr, 128), hr))
    return float(np.mean(values))


def test_the_hooks_are_asked_and_their_state_is_kept(pairs, training_options, write_options, tmp_path, capsys):
    opt = training_options(model_type='WithHooks')
    assert main(['-opt', str(write_options(opt))]) == 0
    state = load_file(experiment(tmp_path) / 'training_states' / '2.state')
    assert state['extra']['count'] == 2
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    before = load_file(experiment(tmp_path) / 'models' / 'net_g_4.pth')
    assert main(['-opt', str(write_options(opt)), '--auto_resume']) == 0
    state = load_file(experiment(tmp_path) / 'training_states' / '4.state')
    assert state['extra']['count'] == 4
    assert same(state['networks'], before)
    assert state['validations'][-1]['psnr'] == pytest.approx(grey_psnr(pairs))
    log = '\n'.join(file.read_text() for file in experiment(tmp_path).glob('train_*.log'))
    assert all(name in log for name in ('l_pix: ', 'l_pix_model: ', 'l_own: '))


@MODEL_REGISTRY.register()
class WithBasicSRsTest(DistillModel):
    """A model that overrides BasicSR's ``test``, as its SwinIRModel and HAT's model do."""

    def test(self) -> None:
        with torch.no_grad():
            self.output = self.net_for_testing()(self.lq) * 0 + 0.5


@ARCH_REGISTRY.register()
class NeedsWindows(Wrapped):
    """A network that takes whole windows alone, as HAT does."""

    window_size = 5

    def head(self, lq: Tensor) -> Any:
        assert not lq.shape[-1] % 5, 'no whole windows'
        assert not lq.shape[-2] % 5, 'no whole windows'
        return super().head(lq)


def test_basicsrs_test_has_effect_and_windows_are_filled(pairs, training_options, write_options, tmp_path):
    assert main(['-opt', str(write_options(training_options(model_type='WithBasicSRsTest')))]) == 0
    state = load_file(experiment(tmp_path) / 'training_states' / '4.state')
    assert state['validations'][-1]['psnr'] == pytest.approx(grey_psnr(pairs))
    opt = training_options(datasets={'train': {'gt_size': 20}}, name='windows')
    opt['network_g'] = {'type': 'NeedsWindows'}
    assert main(['-opt', str(write_options(opt))]) == 0  # the validation's images are of 24 x 24
    net = NeedsWindows()
    lq = torch.rand(1, 3, 23, 17)
    sr = prepare_network(net)(lq)
    assert torch.equal(sr, net(F.pad(lq, (0, 3, 0, 2), 'reflect'))[..., :46, :34])
