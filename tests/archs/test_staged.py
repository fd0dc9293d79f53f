"""Networks as head, body and tail, against BasicSR's own."""

import pytest
import torch
from basicsr.archs import build_network as build_with_basicsr
from torch.nn import functional

from mipkd_sr.archs import STAGED, build_network, feature_shapes, run_with_features
from mipkd_sr.archs.edsr_arch import UPSAMPLERS
from tests.conftest import NETWORKS

PAPER_NETWORKS = {
    'EDSR 256/32': ({'type': 'EDSR', 'num_feat': 256, 'num_block': 32}, 43_089_923),
    'EDSR 64/32': ({'type': 'EDSR', 'num_feat': 64, 'num_block': 32}, 2_699_267),
    'EDSR 64/16': ({'type': 'EDSR', 'num_feat': 64, 'num_block': 16}, 1_517_571),
    'RCAN 20': ({'type': 'RCAN', 'num_group': 10, 'num_block': 20}, 15_592_355),
    'RCAN 6': ({'type': 'RCAN', 'num_group': 10, 'num_block': 6}, 5_171_315),
    'SwinIR 180': ({'type': 'SwinIR', 'embed_dim': 180, 'depths': [6] * 6, 'num_heads': [6] * 6}, 11_900_199),
    'SwinIR 60': ({'type': 'SwinIR', 'embed_dim': 60, 'depths': [6] * 4, 'num_heads': [6] * 4}, 1_235_439),
}
SWINIR = {'img_size': 48, 'window_size': 8, 'mlp_ratio': 2, 'upsampler': 'pixelshuffle'}


@pytest.mark.parametrize(('opt', 'count'), PAPER_NETWORKS.values(), ids=PAPER_NETWORKS)
def test_parameter_counts_of_the_papers_networks_at_x4(opt, count):
    if opt['type'] == 'SwinIR':
        opt = opt | SWINIR
    net = build_network(opt | {'upscale': 4})
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def basicsr_and_staged(kind: str, **changes):
    opt = NETWORKS[kind] | changes
    theirs = build_with_basicsr({'type': kind, **opt}).eval()
    ours = build_with_basicsr({'type': STAGED[kind], **opt}).eval()  # their function finds our class
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('kind', NETWORKS)
@torch.no_grad()
def test_composition_is_basicsrs_forward_to_the_last_bit(kind, scale):
    theirs, ours = basicsr_and_staged(kind, upscale=scale)
    lq = torch.rand(2, 3, 16, 24)
    expected = theirs(lq)
    assert torch.equal(ours(lq), expected)
    feature, context = ours.head(lq)
    for start in range(ours.depth):  # unit by unit
        feature = ours.body(feature, context, start, start + 1)
        assert feature.shape == (2, feature.shape[1], 16, 24)
    assert torch.equal(ours.tail(feature, context), expected)
    sr, features, _ = run_with_features(ours, lq, [2, 1])
    assert torch.equal(sr, expected)
    assert torch.equal(ours.body(features[1], context, 1, 2), features[2])


@pytest.mark.parametrize('kind', NETWORKS)
def test_gradients_are_basicsrs(kind):
    theirs, ours = basicsr_and_staged(kind, upscale=2)
    lq = torch.rand(1, 3, 16, 16)
    for net in (theirs, ours):
        net(lq).square().mean().backward()
    for (name, a), (other, b) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert name == other
        assert torch.allclose(a.grad, b.grad, atol=0, rtol=1e-5), name


@pytest.mark.parametrize('upsampler', ['pixelshuffle', 'pixelshuffledirect', 'nearest+conv', ''])
@torch.no_grad()
def test_every_upsampler_of_swinir(upsampler):
    theirs, ours = basicsr_and_staged('SwinIR', upsampler=upsampler, upscale=4 if upsampler else 1)
    lq = torch.rand(1, 3, 16, 16)
    assert torch.equal(ours(lq), theirs(lq))


@pytest.mark.parametrize('scale', [2, 3, 4])
@torch.no_grad()
def test_edsr_with_one_convolution_for_a_tail(scale):
    net = build_network({'type': 'EDSR', 'num_feat': 8, 'num_block': 2, 'upscale': scale, 'upsampler': UPSAMPLERS[1]})
    lq = torch.rand(1, 3, 9, 12)
    first = net.conv_first(255 * (lq - net.mean))
    feature = first
    for block in net.body:
        feature = feature + block.conv2(block.conv1(feature).relu())
    feature = net.conv_after_body(feature) + first
    phases = functional.conv2d(feature, net.upsample[0].weight, net.upsample[0].bias, padding=1)
    phases = phases.view(1, 3, scale, scale, 9, 12)
    expected = phases.permute(0, 1, 4, 2, 5, 3).reshape(1, 3, 9 * scale, 12 * scale) / 255 + net.mean
    assert torch.allclose(net(lq), expected, atol=1e-6)
    with pytest.raises(ValueError, match='give one of pixelshuffle, pixelshuffledirect'):
        build_network({'type': 'EDSR', 'upsampler': 'nearest'})


@pytest.mark.parametrize('size', [(16, 16), (17, 23), (9, 40), (5, 5), (1, 1)])
@torch.no_grad()
def test_swinir_takes_any_size(size):
    theirs, ours = basicsr_and_staged('SwinIR', upscale=3)
    lq = torch.rand(1, 3, *size)
    sr = ours(lq)
    assert sr.shape == (1, 3, 3 * size[0], 3 * size[1])
    pad = [0, -size[1] % 8, 0, -size[0] % 8]
    if pad[1] < size[1] and pad[3] < size[0]:  # BasicSR's SwinIRModel pads so, and fails on smaller images
        padded = theirs(torch.nn.functional.pad(lq, pad, 'reflect'))
        assert torch.equal(sr, padded[..., : 3 * size[0], : 3 * size[1]])


@pytest.mark.parametrize('kind', NETWORKS)
def test_colour_mean_moves_with_the_network_and_is_not_saved(kind):
    net = build_network({'type': kind, **NETWORKS[kind], 'upscale': 2})
    assert 'mean' in dict(net.named_buffers())
    assert 'mean' not in net.state_dict()
    assert net.double()(torch.rand(1, 3, 16, 16, dtype=torch.float64)).dtype == torch.float64


def test_feature_shapes_leave_network_and_random_state_as_they_were():
    net = build_network({'type': 'SwinIR', **NETWORKS['SwinIR'], 'upscale': 2, 'drop_path_rate': 0.5}).train()
    state = torch.get_rng_state()
    assert feature_shapes(net, [1, 3], 24) == {1: (12, 24, 24), 3: (12, 24, 24)}
    assert net.training
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ('kind', 'channels_in', 'channels_out'),
    [('EDSR', 1, 1), ('EDSR', 3, 1), ('EDSR', 4, 4), ('RCAN', 1, 1), ('SPAN', 1, 1)],
)
def test_images_of_other_than_three_channels_have_the_grey_value_of_the_colour_mean(kind, channels_in, channels_out):
    opt = NETWORKS.get(kind, {'feature_channels': 8})
    net = build_network({'type': kind, **opt, 'num_in_ch': channels_in, 'num_out_ch': channels_out, 'upscale': 2})
    assert net.mean.tolist() == [[[[pytest.approx(0.299 * 0.4488 + 0.587 * 0.4371 + 0.114 * 0.4040)]]]]
    assert net.eval()(torch.rand(1, channels_in, 9, 12)).shape == (1, channels_out, 18, 24)
