"""SPAN and SPANF against a composition by hand, their authors' checkpoints' names, and spandrel."""

import pytest
import torch
from torch.nn import functional as F

from mipkd_sr.archs import build_network, run_with_features
from mipkd_sr.archs.weights import load_weights

PUBLISHED = {
    'SPAN, 48 channels, x2': ({'type': 'SPAN', 'feature_channels': 48, 'upscale': 2}, 410_700),
    'SPAN, 48 channels, x4': ({'type': 'SPAN', 'feature_channels': 48, 'upscale': 4}, 426_288),
    'SPAN, 52 channels, x2': ({'type': 'SPAN', 'feature_channels': 52, 'upscale': 2}, 481_324),
    'SPAN, 52 channels, x4': ({'type': 'SPAN', 'feature_channels': 52, 'upscale': 4}, 498_208),
    'SPAN, NTIRE 2024': ({'type': 'SPAN', 'feature_channels': 28, 'upscale': 4}, 150_688),
    'SPANF, NTIRE 2025': ({'type': 'SPANF', 'feature_channels': 32, 'upscale': 4}, 148_288),
}
MEAN = [0.4488, 0.4371, 0.4040]
"""In single precision, as a buffer of the network."""
SMALL = {'SPAN': {'type': 'SPAN', 'feature_channels': 6}, 'SPANF': {'type': 'SPANF', 'feature_channels': 6}}


@pytest.mark.parametrize(('opt', 'count'), PUBLISHED.values(), ids=PUBLISHED)
def test_parameter_counts_as_published(opt, count):
    net = build_network(opt | {'fused': True})
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def by_hand(weights, lq, scale):
    """Both networks' output from the fused convolutions of a state dict."""

    def conv(name, x):
        weight = weights[f'{name}.weight']
        return F.conv2d(x, weight, weights.get(f'{name}.bias'), padding=weight.shape[-1] // 2)

    def block(number, x):
        first = F.silu(conv(f'block_{number}.c1_r.eval_conv', x))
        second = F.silu(conv(f'block_{number}.c2_r.eval_conv', first))
        third = conv(f'block_{number}.c3_r.eval_conv', second)
        return first, third, (third + x) * (third.sigmoid() - 0.5) if third.shape == x.shape else third

    if 'conv_near.weight' in weights:
        near = F.conv2d(lq, weights['conv_near.weight'], padding=1, groups=3)
        _, x, _ = block(1, lq)
        maps = [near, None, x]
        for number in range(2, 6):
            _, _, x = block(number, x)
        maps[1] = x
        return F.pixel_shuffle(conv('conv_2.eval_conv', conv('conv_cat', torch.cat(maps, 1))), scale)
    x = conv('conv_1.eval_conv', 255 * (lq - torch.tensor(MEAN).view(1, 3, 1, 1)))
    maps = [x, None, None, None]
    for number in range(1, 7):
        maps[3], _, x = block(number, x)
        if number == 1:
            maps[2] = x
    maps[1] = conv('conv_2.eval_conv', x)
    return F.pixel_shuffle(conv('upsampler.0', conv('conv_cat', torch.cat(maps, 1))), scale)


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('kind', SMALL)
@torch.no_grad()
def test_training_evaluation_and_the_fused_form_are_the_network_by_hand(kind, scale, tmp_path):
    torch.manual_seed(0)
    net = build_network(SMALL[kind] | {'upscale': scale}).double()
    lq = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    weights = net.state_dict()
    expected = by_hand(weights, lq, scale)
    assert expected.shape == (2, 3, 9 * scale, 12 * scale)
    for mode in (True, False):
        assert torch.allclose(net.train(mode)(lq), expected, rtol=0, atol=1e-12)
    slim = {name: value for name, value in weights.items() if '.sk.' not in name and '.conv.' not in name}
    torch.save(slim, tmp_path / 'slim.pth')
    fused = build_network(SMALL[kind] | {'upscale': scale, 'fused': True}).double()
    load_weights(fused, tmp_path / 'slim.pth', 'params_ema')
    assert torch.allclose(fused(lq), expected, rtol=0, atol=1e-12)
    sr, features, _ = run_with_features(net, lq, [0, 2, 4])
    assert torch.allclose(sr, expected, rtol=0, atol=1e-12)
    assert {index: tuple(feature.shape) for index, feature in features.items()} == dict.fromkeys(
        (0, 2, 4), (2, 6, 9, 12)
    )


@pytest.mark.parametrize('kind', SMALL)
def test_a_saved_copy_is_that_of_the_weights_after_a_step(kind):
    net = build_network(SMALL[kind] | {'upscale': 2}).double()
    before = net.state_dict()['conv_2.eval_conv.weight'].clone()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    lq = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    net(lq).square().mean().backward()
    optimizer.step()
    weights = net.state_dict()
    assert not torch.equal(weights['conv_2.eval_conv.weight'], before)
    with torch.no_grad():
        assert torch.allclose(net(lq), by_hand(weights, lq, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('kind', SMALL)
def test_gradients_pass_through_the_fused_kernel_as_through_its_parts(kind):
    net = build_network(SMALL[kind] | {'upscale': 2}).double()
    lq = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    found = []
    for mode in (True, False):
        net.train(mode).zero_grad()
        net(lq).square().mean().backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12), name


def test_spandrel_reads_span_as_it_is_saved():
    spandrel = pytest.importorskip('spandrel', reason='reads other programs networks; pip install mipkd_sr[spandrel]')
    net = build_network(SMALL['SPAN'] | {'upscale': 3}).eval()
    theirs = spandrel.ModelLoader().load_from_state_dict({k: v.clone() for k, v in net.state_dict().items()})
    assert (theirs.architecture.id, theirs.scale) == ('SPAN', 3)
    lq = torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        sr = net(lq)
        assert (theirs.model.eval()(lq) - sr).abs().max() < 1e-6 * sr.abs().max()
