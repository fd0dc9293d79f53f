"""Regions of a step that are compiled: as many calls outside of them as stated, and the results of uncompiled code."""

import logging
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils._python_dispatch import TorchDispatchMode

from mipkd_sr.archs.edsr_arch import StagedEDSR
from mipkd_sr.costs.methods import batch_for, model_for, take_step
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.training_state import what_trains
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime import compiling
from mipkd_sr.runtime.checkpoint import load_file
from tests.conftest import ENVIRONMENT, NETWORKS, ROOT, launch
from tests.gradients import tiny_vgg, tiny_vqgan

pytestmark = pytest.mark.filterwarnings('ignore')  # torch.compile's own

OUTSIDE = {
    'KD': 40,
    'RKD': 40,
    'FitNet': 40,
    'CrossKD': 50,
    'FAKD': 200,
    'CSD': 50,
    'wavelet': 40,
    'ECO': 60,
    'DCKD': 90,
    'DUKD': 90,
    'MiPKD': 100,
}
"""The most operators, views aside, that a step may run outside of compiled regions, the optimizer being fused."""


class CountOutside(TorchDispatchMode):
    """Counts operators that are no views, but for those of compiled regions."""

    inside = outside = regions = 0

    @classmethod
    def is_infra_mode(cls) -> bool:  # so that the compiler does not mind it
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.outside += not self.inside and not func.is_view and func.namespace == 'aten'
        return func(*args, **(kwargs or {}))


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountOutside]:
    """Counts, beside a backend that traces and differentiates as all others do, and then runs the operators."""
    mode = CountOutside()

    def compiler(traced: nn.Module, _: Any) -> Any:
        def run(*args: Any) -> Any:
            mode.inside += 1
            mode.regions += 1
            try:
                return traced(*args)
            finally:
                mode.inside -= 1

        return make_boxed_func(run)

    monkeypatch.setattr(compiling, 'BACKEND', aot_autograd(fw_compiler=compiler, bw_compiler=compiler))
    monkeypatch.setattr('mipkd_sr.losses.csd_loss.vgg19_features', tiny_vgg)
    monkeypatch.setattr('mipkd_sr.losses.dckd_loss.load_vqgan', tiny_vqgan)
    torch._dynamo.reset()
    yield mode
    torch._dynamo.reset()


def build(method: str, networks: dict[str, Any] | None = None, **train: Any) -> tuple[DistillModel, dict[str, Any]]:
    """A model of a method for two EDSRs or two of ``networks``, and a batch of 2 patches of 16 x 16."""
    opt = load_options(ROOT / 'options/train/demo/mipkd.yml', is_train=True).data
    opt['num_gpu'] = 0
    opt['datasets']['train'] |= {'batch_size_per_gpu': 4 if method == 'RKD' else 2, 'gt_size': 32}
    small = {'type': 'StagedEDSR', 'num_feat': 8, 'num_block': 3, 'upscale': 2}
    opt['network_g'], opt['network_t'] = dict(networks or small), {**(networks or small)}
    if not networks:
        opt['network_t']['num_feat'] = 12
    opt['train'] |= {'total_iter': 20, 'ema_decay': 0.9, 'optim_g': {'type': 'SGD', 'lr': 1e-3, 'fused': True}}
    return model_for(opt, method, **train), batch_for(opt, torch.device('cpu'))


def weights_of(model: DistillModel) -> torch.Tensor:
    """All that is trained."""
    return torch.cat([parameter.detach().flatten() for parameter in model.step.parameters()])


def weights_after(count: int, method: str, networks: dict[str, Any] | None = None, **train: Any) -> torch.Tensor:
    """All that was trained, after some steps."""
    model, batch = build(method, networks, **train)
    for iteration in range(1, count + 1):
        torch.manual_seed(iteration)
        take_step(model, batch, iteration)
    return weights_of(model)


@pytest.mark.parametrize('method', OUTSIDE)
def test_compiled_steps_train_as_others_do_and_run_few_operators_outside(method, counter, caplog):
    steps, (plain, batch), (compiled, _) = (1, 9, 10), build(method), build(method, compile='graphs')
    with caplog.at_level(logging.WARNING, 'basicsr'):
        for model in (plain, compiled):
            for iteration in steps:
                take_step(model, batch, iteration)
    assert 'compile' not in caplog.text
    assert torch.allclose(weights_of(compiled), weights_of(plain), rtol=0, atol=1e-4)
    counter.regions = counter.outside = 0
    with counter:
        take_step(compiled, batch, steps[-1])
    assert 7 <= counter.regions <= 30
    assert 0 < counter.outside <= OUTSIDE[method]


SWITCHES: dict[str, tuple[str, dict[str, Any]]] = {
    'accumulation and a norm': ('DUKD', {'accumulation_steps': 2, 'grad_clip': 0.1}),
    'two steps': ('DUKD', {'second_step': ['dukd_opt']}),
    'fp16 and a gate': (
        'KD',
        {'precision': 'fp16', 'channels_last': True, 'kd_opt': {'type': 'LogitsKDLoss', 'gate': 4}},
    ),
    'a term that ends': ('FitNet', {'fitnet_opt': {'type': 'FitNetLoss', 'schedule': {'shape': 'window', 'end': 0.1}}}),
    'balance': ('FitNet', {'fitnet_opt': {'type': 'FitNetLoss', 'balance': 0.5}}),
    'teacher paths': ('MiPKD', {'mipkd_opt': {'type': 'MiPKDLoss', 'student_probability': 0, 'drop_probability': 0}}),
}


@pytest.mark.parametrize('name', SWITCHES)
def test_compiled_steps_know_every_switch(name, counter):
    method, train = SWITCHES[name]
    plain = weights_after(3, method, **train)
    atol = 2e-3 if 'fp16' in name else 1e-4
    assert torch.allclose(weights_after(3, method, compile='graphs', **train), plain, rtol=0, atol=atol)


@pytest.mark.parametrize('kind', ['SwinIR'])
def test_compiled_networks_train_as_uncompiled_ones_do(kind, counter, caplog):
    """SwinIR's drop-path, too."""
    networks = {'type': f'Staged{kind}', **NETWORKS[kind], 'upscale': 2}
    plain = weights_after(2, 'KD', networks)
    with caplog.at_level(logging.WARNING, 'basicsr'):
        assert torch.allclose(weights_after(2, 'KD', networks, compile='graphs'), plain, rtol=0, atol=1e-4)
    assert 'compile' not in caplog.text


@pytest.mark.parametrize('method', ['scratch', 'AT', 'MiPKD + DUKD', 'DCKD + DUKD'])
def test_the_other_methods_train_compiled_as_they_do_otherwise(method, counter, caplog):
    plain = weights_after(2, method)
    with caplog.at_level(logging.WARNING, 'basicsr'):
        assert torch.allclose(weights_after(2, method, compile='graphs'), plain, rtol=0, atol=1e-4)
    assert 'compile' not in caplog.text
    assert counter.regions > 0


@pytest.mark.parametrize('method', ['FitNet', 'MiPKD'])
def test_a_compiled_run_that_is_resumed_ends_where_an_undisturbed_one_does(method, counter):
    """To the last bit, and in code that was compiled anew."""
    train = {'compile': 'graphs', 'optim_g': {'type': 'Adam', 'lr': 1e-3}}
    whole, batch = build(method, **train)
    first, _ = build(method, **train)
    for model, steps in ((whole, range(1, 5)), (first, range(1, 3))):
        for iteration in steps:
            take_step(model, batch, iteration)
    state = deepcopy({'iter': 2, 'networks': first._networks()} | what_trains(first))
    torch._dynamo.reset()
    second, _ = build(method, **train)
    second.resume_training(state)
    for iteration in (3, 4):
        take_step(second, batch, iteration)
    assert torch.equal(weights_of(second), weights_of(whole))
    assert not torch.equal(weights_of(second), weights_of(first))


@ARCH_REGISTRY.register()
class NormedBodyEDSR(StagedEDSR):
    """An EDSR with a BatchNorm after its body, through which mixed features pass as well."""

    def __init__(self, num_feat: int = 8, num_block: int = 3, upscale: int = 2) -> None:
        super().__init__(num_feat=num_feat, num_block=num_block, upscale=upscale)
        self.conv_after_body = nn.Sequential(self.conv_after_body, nn.BatchNorm2d(num_feat))


@pytest.mark.parametrize('method', ['KD', 'CrossKD', 'MiPKD'])
def test_a_compiled_students_statistics_of_batches_are_those_of_an_uncompiled_one(method, counter, caplog):
    networks, states = {'type': 'NormedBodyEDSR', 'upscale': 2}, []
    with caplog.at_level(logging.WARNING, 'basicsr'):
        for mode in (False, 'graphs'):
            model, batch = build(method, networks, compile=mode)
            for iteration in (1, 2, 3):
                take_step(model, batch, iteration)
            states.append(model.net_g.state_dict())
    assert 'compile' not in caplog.text
    plain, compiled = states
    assert plain['conv_after_body.1.num_batches_tracked'] == compiled['conv_after_body.1.num_batches_tracked'] == 3
    for name, value in plain.items():
        assert torch.allclose(compiled[name], value, rtol=0, atol=1e-4), name


WITHOUT_INDUCTOR = """
import sys
from mipkd_sr.runtime import compiling
from mipkd_sr.train import main
from torch._dynamo.utils import counters
compiling.BACKEND = 'aot_eager'
code = main()
print(f"graphs: {counters['stats']['unique_graphs']}")  # as one text: the processes share the stream
sys.exit(code)
"""


def test_compiled_processes_train_together_as_uncompiled_ones_do(training_options, write_options, tmp_path):
    """Two, by gloo: the gradients are averaged, and both take the same way."""
    (tmp_path / 'train.py').write_text(WITHOUT_INDUCTOR)
    found = []
    for mode in (False, True):
        name = f'compile_{mode}'
        train = {'compile': mode, 'total_iter': 2}
        opt = training_options('kd', 'mipkd', name=name, train=train)
        opt['train']['optim_g'] = {'type': 'SGD', 'lr': 1e-3}
        del opt['datasets']['val'], opt['val']
        command = launch(2, tmp_path / 'train.py', '-opt', write_options(opt, f'{name}.yml'), '--launcher', 'pytorch')
        done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert 'torch.compile failed' not in done.stderr
        assert done.stdout.count('graphs: ') == 2
        assert ('graphs: 0' in done.stdout) == (not mode)
        found.append(load_file(tmp_path / 'experiments' / name / 'training_states/2.state')['networks']['params'])
    plain, compiled = found
    for name, value in plain.items():
        assert torch.allclose(compiled[name], value, rtol=0, atol=1e-5), name


class Breaking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + float(x.sum().item())


def test_what_cannot_be_compiled_says_so_once_and_is_run_as_it_is(counter, caplog, monkeypatch):
    nets = [Breaking(), Breaking(), nn.Identity()]
    x = torch.rand(2)

    @compiling.region
    def run(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net(x)

    with compiling.compiling('graphs'), caplog.at_level(logging.WARNING, 'basicsr'):
        for net in nets * 2:
            assert torch.equal(run(net, x), net(x))
        said = [record.getMessage() for record in caplog.records if record.name == 'basicsr']
        assert 1 <= len(said) <= 2, said  # the second may have no code of its own
        assert all(
            line.startswith('Breaking is compiled in parts, without CUDA graphs: torch.comp') for line in said
        ), said
        monkeypatch.setattr(compiling, 'BACKEND', lambda *_: 1 / 0)
        torch._dynamo.reset()
        assert torch.equal(compiling.region(lambda net, x: net(x + 1))(nets[2], x), x + 1)
    assert 'Identity is run as it is: torch.compile failed (' in caplog.records[-1].getMessage()


def test_a_compiler_that_fails_in_the_backward_pass_is_left(counter, caplog, monkeypatch):
    def fail(*_: Any) -> Any:
        raise BackendCompilerFailed(fail, TypeError('no order'), None)

    forward_alone = aot_autograd(fw_compiler=lambda traced, _: make_boxed_func(traced), bw_compiler=fail)
    plain = weights_after(2, 'KD')
    monkeypatch.setattr(compiling, 'BACKEND', forward_alone)
    with caplog.at_level(logging.WARNING, 'basicsr'):
        assert torch.equal(weights_after(2, 'KD', compile='graphs'), plain)
    assert 'torch.compile failed' in caplog.text


@pytest.mark.parametrize(
    ('wanted', 'device', 'capability', 'steps', 'mode'),
    [
        (False, 'cuda', (9, 0), 10**6, 'false'),
        (True, 'cpu', None, 1, 'true'),
        ('graphs', 'cuda', (6, 1), 1, 'graphs'),
        ('auto', 'cpu', None, 10**6, 'false'),
        ('auto', 'cuda', (9, 0), 10**6, 'graphs'),
        ('auto', 'cuda', (6, 1), 10**6, 'false'),
        ('auto', 'cuda', (9, 0), 100, 'false'),
    ],
)
def test_auto_is_graphs_where_they_can_be_and_pay(wanted, device, capability, steps, mode, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: capability)
    monkeypatch.setattr(compiling.shutil, 'which', lambda name: f'/usr/bin/{name}')
    assert compiling.choose_mode(wanted, torch.device(device), steps) == mode


def test_without_a_compiler_auto_is_false(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 0))
    monkeypatch.setattr(compiling.shutil, 'which', lambda name: None)
    assert compiling.choose_mode('auto', torch.device('cuda'), 10**6) == 'false'


def test_compiled_code_is_kept_where_the_option_says(tmp_path, monkeypatch):
    monkeypatch.delenv('TORCHINDUCTOR_CACHE_DIR', raising=False)
    build('KD', compile=True, compile_cache=str(tmp_path / 'code'))
    assert compiling.os.environ['TORCHINDUCTOR_CACHE_DIR'] == str(tmp_path / 'code')
