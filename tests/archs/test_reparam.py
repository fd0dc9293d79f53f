"""Networks that train as products of kernels and run as plain convolutions: exactness, counts, stages."""

from copy import deepcopy

import pytest
import torch
import yaml
from basicsr.archs.ecbsr_arch import ECBSR
from torch.nn import functional as F

from mipkd_sr.api import load_student
from mipkd_sr.archs import build_network, check_staged, run_with_features
from mipkd_sr.archs.loading import NetworkOptions, load_network
from mipkd_sr.archs.reparam_arch import ExpandedConv
from mipkd_sr.archs.weights import fuse
from mipkd_sr.evaluation.complexity import count_parameters

FORMS = {
    'as it is': {'num_feat': 8, 'num_block': 2},
    'plain kernels': {'num_feat': 8, 'num_block': 2, 'expanded': 0, 'activation': 'relu'},
    'luma': {'num_feat': 8, 'num_block': 2, 'luma': True, 'upscale': 3},
    'SESR': {'num_in_ch': 1, 'num_feat': 8, 'num_block': 2, 'end_kernel': 5, 'long_skip': True},
}


def network(opt):
    torch.manual_seed(0)
    net = build_network({'type': 'ReparamSR'} | opt).double()
    for parameter in net.parameters():  # biases and the colour filter start at nothing, and would prove nothing
        if parameter.requires_grad and (parameter.ndim == 1 or not parameter.any()):
            torch.nn.init.uniform_(parameter, 0.05, 0.2)
    return net


@pytest.mark.parametrize('opt', FORMS.values(), ids=FORMS)
@torch.no_grad()
def test_fusing_is_exact_and_leaves_plain_convolutions_under_the_names_of_the_fused_network(opt):
    net = network(opt)
    lq = torch.rand(2, opt.get('num_in_ch', 3), 9, 12, dtype=torch.float64)
    expected = net.train()(lq)
    fused = fuse(deepcopy(net))
    assert torch.allclose(fused(lq), expected, rtol=0, atol=1e-12)
    assert not any(isinstance(module, ExpandedConv) for module in fused.modules())
    again = build_network({'type': 'ReparamSR'} | opt | {'fused': True}).double()
    again.load_state_dict(fused.state_dict())
    assert torch.equal(again(lq), fused(lq))
    assert torch.equal(fuse(fused)(lq), again(lq))


@torch.no_grad()
def test_a_kernel_is_the_convolutions_that_it_is_a_product_of():
    conv = network({'num_feat': 6, 'num_block': 1, 'expanded': 12}).body[0][0]
    x = torch.rand(1, 6, 8, 9, dtype=torch.float64)
    wide = F.conv2d(x, conv.weight, padding=1)
    by_hand = F.conv2d(wide, conv.squeeze[:, :, None, None])
    assert torch.allclose(conv(x), by_hand + conv.bias.view(1, -1, 1, 1) + x, rtol=0, atol=1e-12)


def counted(opt, size=(360, 640)):
    """Parameters, and multiply-adds of the convolutions for an input of this size, by hooks."""
    net = fuse(build_network({'type': 'ReparamSR'} | opt))
    adds = 0

    def note(module, inputs, output):
        nonlocal adds
        adds += output[0].numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    net.to('meta')(torch.zeros(1, opt.get('num_in_ch', 3), *size, device='meta'))
    return net, adds


@pytest.mark.parametrize(('blocks', 'kernels', 'giga'), [(3, 8_912, 2.05), (5, 13_520, 3.11), (11, 27_344, 6.30)])
def test_counts_of_sesr_as_published(blocks, kernels, giga):
    """SESR-M3, M5 and M11 at x2 (Table 1), which count kernels alone."""
    net, adds = counted({'num_in_ch': 1, 'num_block': blocks, 'end_kernel': 5, 'long_skip': True})
    assert sum(p.numel() for p in net.parameters() if p.ndim == 4) == kernels
    assert round(adds / 1e9, 2) == pytest.approx(giga, abs=0.011)


@pytest.mark.parametrize(('channels', 'blocks'), [(8, 4), (16, 4), (16, 10)])
@torch.no_grad()
def test_it_is_ecbsr_of_the_same_shape(channels, blocks):
    """With the kernels that the blocks of BasicSR's ECBSR say they are, it gives the same image."""
    torch.manual_seed(0)
    theirs = ECBSR(3, 3, blocks, channels, with_idt=True, act_type='prelu', scale=2).eval()
    ours = build_network({'type': 'ReparamSR', 'num_feat': channels, 'num_block': blocks, 'fused': True})
    stages = [ours.conv_first, *ours.body, [ours.conv_last]]
    count = 0
    for (conv, *activation), block in zip(stages, theirs.backbone, strict=True):
        kernel, bias = block.rep_params()
        conv.weight.copy_(kernel)
        conv.bias.copy_(bias)
        count += kernel.numel() + bias.numel()
        if activation:
            activation[0].weight.copy_(block.act.weight)
            count += block.act.weight.numel()
    assert count == count_parameters(ours)
    lq = torch.rand(1, 3, 12, 10)
    assert torch.allclose(ours(lq), theirs(lq), rtol=0, atol=1e-5)


@torch.no_grad()
def test_stages_compose_in_both_forms():
    net = network(FORMS['luma']).float()
    lq = torch.rand(2, 3, 16, 16)
    for form in (net, fuse(deepcopy(net))):
        check_staged(form)
        sr, features, _ = run_with_features(form, lq, [0, 1, 2])
        assert torch.equal(sr, form(lq))
        assert {tuple(feature.shape) for feature in features.values()} == {(2, 8, 16, 16)}


@torch.no_grad()
def test_luma_changes_no_colour_difference_but_by_its_filter():
    net = network(FORMS['luma'] | {'expanded': 4})
    lq = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    net.colour.weight.zero_()
    red, green, blue = (net(lq) - F.interpolate(lq, scale_factor=3, mode='nearest'))[0]
    assert red.std() > 0
    assert torch.allclose(red, green, atol=1e-12)
    assert torch.allclose(red, blue, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_luma_starts_near_the_bilinear_image(scale):
    net = build_network({'type': 'ReparamSR', 'luma': True, 'upscale': scale}).double()
    net.conv_last.weight.zero_()
    lq = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    bilinear = F.interpolate(lq, scale_factor=scale, mode='bilinear', align_corners=False)
    inner = slice(scale, -scale)
    assert torch.allclose(net(lq)[..., inner, inner], bilinear[..., inner, inner], rtol=0, atol=1e-6)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 'gelu'; give one of prelu, lrelu, relu"):
        build_network({'type': 'ReparamSR', 'activation': 'gelu'})


def test_a_trained_student_is_loaded_fused_and_counted_so(tmp_path):
    opt = {'type': 'ReparamSR', 'num_feat': 8, 'num_block': 2}
    net = build_network(opt).eval()
    (tmp_path / 'student.yml').write_text(yaml.safe_dump({'network_g': opt}))
    torch.save({'params_ema': net.state_dict()}, tmp_path / 'student.pth')
    loaded = load_student(tmp_path / 'student.pth', tmp_path / 'student.yml')
    entry = NetworkOptions(opt, str(tmp_path / 'student.pth'), 'params_ema', 'network_g', 'path')
    tested = fuse(load_network(entry, 2))
    lq = torch.rand(1, 3, 9, 8)
    for fused in (loaded, tested):
        assert count_parameters(fused) == (27 * 8 + 8 + 8) + 2 * (72 * 8 + 8 + 8) + 72 * 12 + 12
        with torch.no_grad():
            assert torch.allclose(fused(lq), net(lq), rtol=0, atol=1e-6)
    assert count_parameters(net) > 10 * count_parameters(loaded)
