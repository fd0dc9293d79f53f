"""8 bits: what is simulated, how it trains, and what runtimes make of it."""

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from mipkd_sr.archs import build_network, check_staged
from mipkd_sr.archs.exported_arch import open_exported
from mipkd_sr.archs.quantized_arch import LOG_STEP, ZERO, Quantized
from mipkd_sr.archs.weights import fuse, settle
from mipkd_sr.cli import main
from mipkd_sr.deploy.quantising import quantize
from tests.conftest import NETWORKS, experiment, same, smooth_image, state

EDSR = {'type': 'StagedEDSR', 'num_feat': 8, 'num_block': 2, 'upscale': 2, 'upsampler': 'pixelshuffledirect'}
OTHERS = {
    'RCAN': {'type': 'StagedRCAN', **NETWORKS['RCAN'], 'upscale': 2},
    'SPAN': {'type': 'SPAN', 'feature_channels': 8, 'upscale': 2},
    'BSRN': {'type': 'BSRN', 'num_feat': 16, 'num_block': 2, 'upscale': 2},
    'ReparamSR': {
        'type': 'ReparamSR',
        'num_feat': 32,
        'num_block': 1,
        'upscale': 2,
        'activation': 'lrelu',
        'luma': True,
    },
}


def waves(seed: int = 0) -> torch.Tensor:
    image = np.ascontiguousarray(smooth_image(48, 48, seed).transpose(2, 0, 1))
    return torch.from_numpy(image)[None] / 255


def calibrated(options: dict, count: int = 2) -> Quantized:
    net = Quantized(build_network(options))
    net.calibrate([waves(seed) for seed in range(count)])
    return net.eval()


@torch.no_grad()
def test_folding_the_mean_leaves_all_but_the_border_as_it_was() -> None:
    for options in (EDSR, OTHERS['RCAN'], EDSR | {'upsampler': 'pixelshuffle'}):
        net = build_network(options).double().eval()
        lq = waves().double()
        inside = (..., slice(24, -24), slice(24, -24))
        whole = torch.nn.functional.pad(lq, (12, 12, 12, 12), 'reflect')
        if options is not OTHERS['RCAN']:  # which sees the border everywhere, by its pooling
            torch.testing.assert_close(
                fuse(deepcopy(net), fold=True)(whole)[inside], net(whole)[inside], rtol=0, atol=1e-9
            )
        assert (fuse(deepcopy(net), fold=True)(lq) - net(lq)).abs().max() < 0.05


def test_what_is_trained_of_a_folded_network_keeps_its_size() -> None:
    """An optimizer's step of 1e-4 would otherwise be a quarter of the last convolution's weights, which are / 255."""
    net = Quantized(build_network(EDSR))
    own = [weight for weight in net.parameters() if weight.ndim == 4]
    plain = dict(net.plain[0].named_parameters())
    theirs = [weight for weight in plain.values() if weight.ndim == 4]
    assert len(own) == len(theirs)
    assert all(any(torch.equal(weight, one) for one in own if weight.shape == one.shape) for weight in theirs)
    lq = waves()
    with torch.no_grad():
        net.calibrate([lq])
        before = net(lq)
        settled = settle(deepcopy(net))
        assert (settled(lq) - before).abs().max() < 1.01 / 255
        assert torch.equal(net(lq), before), 'the copy alone is changed'
    assert torch.equal(settled.net.conv_first.weight, plain['conv_first.weight'] * 255)
    assert {name.removeprefix('net.') for name, _ in settled.named_parameters()} == {*plain, 'ranges'}


@torch.no_grad()
def test_the_arithmetic_is_that_of_whole_numbers() -> None:
    """EDSR's first convolution by hand: levels, weights of 8 bits, and one multiplication at the end."""
    net = calibrated(EDSR)
    lq = (waves() * 255).round() / 255
    feature, _ = net.head(lq)
    conv = net.net.conv_first
    grey = round(float(build_network(EDSR).mean.mean()) * 255)
    levels = np.pad((lq[0].numpy() * 255).round().astype(int), ((0, 0), (1, 1), (1, 1)), constant_values=grey)
    step = np.abs(conv.weight.numpy()).max((1, 2, 3)) / 127
    weight = np.round(conv.weight.numpy() / step[:, None, None, None]).astype(int)
    total = sum(
        np.einsum('oi,ihw->ohw', weight[:, :, y, x], levels[:, y : y + 48, x : x + 48])
        for y in range(3)
        for x in range(3)
    )
    values = total * (step[:, None, None] / 255) + conv.bias.numpy()[:, None, None]
    point = [name for name in net.points if name.startswith('head')][-1]
    out, zero = float(net.steps[net.points[point]]), int(net.zeros[net.points[point]])
    expected = ((values / out + zero).round().clip(0, 255) - zero) * out
    assert np.abs(feature[0].numpy() - expected).max() < 1.01 * out
    assert (np.abs(feature[0].numpy() - expected) > out / 2).mean() < 1e-3, 'ties apart it is the same'
    sr = net(lq) * 255
    assert (sr - sr.round()).abs().max() < 1e-3, 'the output has the levels of an image'


@pytest.mark.parametrize('name', ['EDSR', *OTHERS])
def test_any_staged_network_is_quantised_and_stays_staged(name: str) -> None:
    net = calibrated({'EDSR': EDSR, **OTHERS}[name])
    check_staged(net, 2)
    lq = waves(5)
    with torch.no_grad():
        difference = net(lq) - net.plain[0].eval()(lq).clamp(0, 1)
    assert 0 < difference.abs().mean() < 0.05
    net.train()(lq).mean().backward()
    gradients = [parameter.grad for parameter in net.net.parameters() if parameter.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_an_image_is_taken_in_any_layout() -> None:
    net = calibrated(OTHERS['ReparamSR'])
    lq = waves(5)
    with torch.no_grad():
        assert torch.equal(net(lq), net(lq.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize('name', ['EDSR', 'ReparamSR'])
def test_training_moves_ranges_by_the_gradient_of_learned_steps(name: str) -> None:
    """d/dstep of a rounded value is (round(v) - v) / 1 inside the range and its end outside, by hand for one point."""
    net = calibrated({'EDSR': EDSR, **OTHERS}[name]).train()
    lq = waves(5)
    with torch.no_grad():
        plain = net(lq)
        step, zero = (column[1] for column in net.levels())
    feature = torch.linspace(-1.5, 1.5, 301)
    net.rounded(feature, list(net.points)[1]).sum().backward()
    level = feature / step + zero
    inside = (level.round() >= 0) & (level.round() <= 255)
    by_step = torch.where(inside, (level.round() - level), level.clamp(0, 255).round() - zero).sum() * step
    assert net.ranges.grad is not None
    torch.testing.assert_close(net.ranges.grad[0, 1], LOG_STEP * by_step, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(net.ranges.grad[1, 1], -ZERO * step * (~inside).sum(), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        net.ranges[:, 1:-1] += torch.tensor([[0.1], [0.05]])
        moved = net(lq)
        assert torch.equal(net.eval()(lq), moved), 'a step is the same in training and afterwards'
    assert not torch.equal(moved, plain)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['EDSR', 'ReparamSR'])
@pytest.mark.parametrize('ending', ['.onnx', '.tflite'])
def test_a_runtime_computes_what_is_simulated(ending: str, name: str, tmp_path: Path) -> None:
    for module in ('onnxscript', 'onnxruntime') if ending == '.onnx' else ('litert_torch', 'ai_edge_quantizer'):
        pytest.importorskip(module)
    net, file = calibrated({'EDSR': EDSR, **OTHERS}[name]), tmp_path / f'net{ending}'
    with torch.no_grad():  # as training may leave them: much coarser than the images ask for
        net.ranges[0, 1:-1] += 0.7
        assert torch.equal(net.levels()[0][1:-1], net.steps[1:-1] * np.float32(np.exp(np.float32(2.1))))
    (said,) = quantize(net, [waves(0), waves(1)], [file], (48, 48))
    assert 'as PyTorch to' in said
    with torch.no_grad():
        found, expected = open_exported(file).run(waves(3).numpy()), net(waves(3)).numpy()
    assert np.abs(found - expected).mean() < 0.5 / 255
    if ending == '.onnx':
        import onnx

        graph = onnx.load(str(file)).graph
        kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
        weights = [
            node.input[0] for node in graph.node if node.op_type == 'DequantizeLinear' and node.input[0] in kinds
        ]
        assert len(weights) == {'EDSR': 1 + 2 * 2 + 2, 'ReparamSR': 1 + 1 + 2}[name]
        assert {kinds[name] for name in weights} == {onnx.TensorProto.INT8}


def test_training_at_8_bits_goes_on_to_the_last_bit(training_options, write_options, tmp_path: Path) -> None:
    """Under a teacher, with every kind of objective, gone on with from its half."""
    (tmp_path / 'photos').mkdir()
    for seed in range(2):
        cv2.imwrite(str(tmp_path / 'photos' / f'{seed}.png'), smooth_image(48, 48, seed))
    (tmp_path / 'plain.yml').write_text(yaml.safe_dump({'network_g': EDSR}))
    torch.save({'params': build_network(EDSR).state_dict()}, tmp_path / 'plain.pth')
    arguments = ['-opt', str(tmp_path / 'plain.yml'), '--weights', str(tmp_path / 'plain.pth')]
    command = ['quantize', *arguments, '--images', str(tmp_path / 'photos'), '--out', str(tmp_path / 'start.pth')]
    assert main(command) == 0
    opt = training_options('kd', 'mipkd', 'dukd', path={'pretrain_network_g': str(tmp_path / 'start.pth')})
    opt['network_g'] = {'type': 'Quantized', 'network': EDSR}
    command = ['train', '-opt', str(write_options(opt)), '--auto_resume']
    assert main(command) == 0
    whole = state(tmp_path, 4)['networks']['params']
    for file in experiment(tmp_path).rglob('*4.*'):
        file.unlink()
    assert main(command) == 0
    again = state(tmp_path, 4)['networks']['params']
    started = torch.load(tmp_path / 'start.pth')['params']
    assert not same(whole, started)
    assert torch.equal(whole['steps'], started['steps'])
    assert whole['ranges'].abs().sum() > 0 == started['ranges'].abs().sum()
    assert same(whole, again)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out', 'a.bin'], 'a.bin ends in none of .onnx, .pth, .tflite'),
        (['--out', 'a.pth'], '--images: is missing: a folder of images'),
        (['--out', 'a.pth', '--images', 'absent'], 'there is no absent'),
        (['--out', 'a.tflite'], '--size: is missing: LiteRT'),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['quantize', '--scale', '2', *arguments]) == 2
    assert message in capsys.readouterr().err
    (tmp_path / 'tiny').mkdir()
    cv2.imwrite(str(tmp_path / 'tiny' / 'a.png'), smooth_image(20, 48, 0))
    assert main(['quantize', '--scale', '2', '--out', 'a.pth', '--images', 'tiny']) == 2
    assert 'is no image of at least 32 x 32 pixels' in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {'tiny'}
