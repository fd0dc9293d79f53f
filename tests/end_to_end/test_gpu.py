"""What only a GPU can show. Every test that a CPU can run, too, runs there as well, so that none rots unseen."""

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mipkd_sr.costs.methods import METHODS, batch_for, model_for, take_step
from mipkd_sr.data import build_dataset
from mipkd_sr.data.stream import TrainingBatches
from mipkd_sr.models import DistillModel, build_model
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.seeding import seed_everything
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, ROOT, experiment, launch, state
from tests.gradients import tiny_vgg, tiny_vqgan

pytestmark = pytest.mark.filterwarnings('ignore:.*TF32 behavior')  # that its switches have new names
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
DEVICES = ['cpu', pytest.param('cuda', marks=needs_gpu)]
TOLERANCE = 1e-4
"""Greatest difference of weights after a few steps that kernels may make which add in an order of their own."""


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


SWITCHES = ((torch.backends.cuda.matmul, 'allow_tf32'), (torch.backends.cudnn, 'allow_tf32'))
SWITCHES += ((torch.backends.cudnn, 'benchmark'),)
"""What training sets for the whole process, by module and name."""


@pytest.fixture(autouse=True)
def _own_switches() -> Iterator[None]:
    """Leave to the next test what training has set."""
    before = [getattr(module, name) for module, name in SWITCHES]
    yield
    for (module, name), value in zip(SWITCHES, before, strict=True):
        setattr(module, name, value)


@pytest.fixture
def _no_tf32(_own_switches: None) -> None:
    for module, name in SWITCHES:
        setattr(module, name, False)


@pytest.fixture
def built(
    training_options: Callable[..., dict[str, Any]], write_options: Callable[..., Any]
) -> Callable[..., tuple[DistillModel, dict[str, Any]]]:
    """A function that builds a tiny KD + MiPKD + DUKD run on a device: its model, and its options."""

    def build(device: torch.device, **train: Any) -> tuple[DistillModel, dict[str, Any]]:
        opt = training_options('kd', 'mipkd', 'dukd')
        opt['train'].update(train)
        opt = load_options(write_options(opt), is_train=True).data
        opt.update(rank=0, world_size=1, dist=False, num_gpu=int(device.type == 'cuda'))
        seed_everything(opt['manual_seed'])
        return build_model(opt), opt

    return build


def take_steps(model: DistillModel, count: int) -> dict[str, float]:
    """Take steps on seeded noise; returns the last one's losses."""
    for iteration in range(1, count + 1):
        generator = torch.Generator().manual_seed(iteration)
        lq, gt = torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
        model.feed_data({'lq': lq, 'gt': gt})
        model.optimize_parameters(iteration)
    return dict(model.get_current_log())


def weights(model: DistillModel) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.net_g.parameters()).detach().cpu()


@needs_gpu
@pytest.mark.usefixtures('_no_tf32')
def test_a_gpu_computes_what_a_cpu_does(built):
    """MiPKD's mask and DUKD's crops are drawn by the device's own generator, so the terms without them are compared."""
    found = []
    for name in ('cpu', 'cuda'):
        model, _ = built(torch.device(name), mipkd_opt=None, dukd_opt=None)
        take_steps(model, 3)
        found.append(weights(model))
    assert torch.allclose(*found, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    'train',
    [
        {'precision': 'bf16'},
        {'precision': 'fp16'},
        {'teacher_precision': 'bf16'},
        {'teacher_precision': 'fp16'},
        {'channels_last': True},
        {'tf32': True},
    ],
    ids=str,
)
def test_a_switch_moves_the_losses_by_no_more_than_its_rounding(train, device, built):
    plain = take_steps(built(device)[0], 1)
    switched = take_steps(built(device, **train)[0], 1)
    assert plain.keys() == switched.keys()
    for name, value in plain.items():
        assert switched[name] == pytest.approx(value, rel=0.05, abs=1e-6), name


@needs_gpu
@pytest.mark.skipif(not shutil.which('cc') and not shutil.which('gcc'), reason='needs a C compiler')
@pytest.mark.parametrize('mode', [True, 'graphs'])
@pytest.mark.filterwarnings('ignore')  # torch.compile's own
def test_compiled_steps_compute_the_same(mode, built, caplog):
    """A CUDA graph is captured in the second step that takes the same way, and replayed from the third on."""
    device = torch.device('cuda')
    with caplog.at_level(logging.WARNING, 'basicsr'):
        plain, compiled = take_steps(built(device)[0], 5), take_steps(built(device, compile=mode)[0], 5)
    assert 'torch.compile failed' not in caplog.text  # what fails is run uncompiled, and alike
    for name, value in plain.items():
        assert compiled[name] == pytest.approx(value, rel=1e-2, abs=1e-6), name


@pytest.mark.parametrize('name', ['Adam', 'AdamW', 'SGD'])
def test_an_optimizer_is_fused_on_a_gpu_and_steps_alike(name, device, built):
    optim = {'type': name, 'lr': 1e-3}
    ours, _ = built(device, optim_g=optim)
    plain, _ = built(device, optim_g={**optim, 'foreach': False})
    assert bool(ours.optimizer_g.defaults.get('fused')) == (device.type == 'cuda')
    take_steps(ours, 3)
    take_steps(plain, 3)
    assert torch.allclose(weights(ours), weights(plain), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('train', [{}, {'precision': 'fp16'}], ids=['fp32', 'fp16'])
def test_a_step_with_bad_numbers_is_skipped_on_the_device(train, device, built):
    model, _ = built(device, **train)
    take_steps(model, 1)
    before = weights(model)
    model.feed_data({'lq': torch.full((2, 3, 8, 8), float('nan')), 'gt': torch.rand(2, 3, 16, 16)})
    model.optimize_parameters(2)
    assert torch.equal(weights(model), before)
    take_steps(model, 1)
    assert torch.isfinite(weights(model)).all()
    assert not torch.equal(weights(model), before)


@needs_gpu
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.filterwarnings('ignore:Synchronization debug mode')  # that it is a prototype
def test_a_step_does_not_wait_for_the_gpu(method, monkeypatch):
    monkeypatch.setattr('mipkd_sr.losses.csd_loss.vgg19_features', tiny_vgg)
    monkeypatch.setattr('mipkd_sr.losses.dckd_loss.load_vqgan', tiny_vqgan)
    opt = load_options(ROOT / 'options/train/demo/mipkd.yml', True).data
    opt.update(num_gpu=1, rank=0, world_size=1, dist=False)
    if method == 'CSD':  # defined for a student of the teacher's depth
        opt['network_g']['num_block'] = opt['network_t']['num_block']
    model, batch = model_for(opt, method), batch_for(opt, torch.device('cuda'))
    for iteration in (1, 2):
        take_step(model, batch, iteration)
    try:
        torch.cuda.set_sync_debug_mode('error')
        take_step(model, batch, 3)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_batches_for_a_gpu_lie_in_pinned_memory(device, built):
    _, opt = built(device)
    batch = next(iter(TrainingBatches(build_dataset(opt, 'train'), opt, 1)))
    assert batch['lq'].is_pinned() == (device.type == 'cuda')


@pytest.mark.parametrize('train', [{}, {'precision': 'fp16', 'ema_decay': 0.9}], ids=['fp32', 'fp16'])
@pytest.mark.usefixtures('_no_tf32')
def test_a_resumed_run_ends_where_an_undisturbed_one_does(train, device, training_options, write_options, tmp_path):
    """On a CPU to the last bit; on a GPU to what its kernels differ in from run to run."""
    opt = training_options('kd', 'mipkd', 'dukd', num_gpu='auto' if device.type == 'cuda' else 0, train=train)
    file = write_options(opt)
    assert main(['-opt', str(file)]) == 0
    undisturbed = state(tmp_path, 4)['networks']['params']
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    for name, value in state(tmp_path, 4)['networks']['params'].items():
        assert torch.allclose(value, undisturbed[name], rtol=0, atol=TOLERANCE if device.type == 'cuda' else 0), name


def test_torchrun_with_one_process_trains(device, training_options, write_options, tmp_path):
    """On a GPU through nccl."""
    opt = training_options('kd', 'mipkd', 'dukd', num_gpu='auto' if device.type == 'cuda' else 0)
    command = launch(1, ROOT / 'mipkd_sr/train.py', '-opt', write_options(opt), '--launcher', 'pytorch')
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert state(tmp_path, 4)['iter'] == 4
