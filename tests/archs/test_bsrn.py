"""BSRN: its stages compose to the network of the paper, and its authors' weights measure what they should."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mipkd_sr.archs import build_network
from mipkd_sr.archs.bsrn_arch import ContrastAttention
from mipkd_sr.archs.weights import load_weights, read_weights
from mipkd_sr.data.images import read_image
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.metrics import psnr
from tests.conftest import SHARED_DATA

PUBLISHED = {2: 332_000, 3: 340_000, 4: 352_000}
"""Parameters by scale, as the paper's tables have them."""


def block(w: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """An ESDB written from the paper's figures, on the weights as they stand in a checkpoint."""

    def conv(layer: str, t: torch.Tensor, **how: int) -> torch.Tensor:
        return F.conv2d(t, w[f'{name}.{layer}.weight'], w.get(f'{name}.{layer}.bias'), **how)

    def blueprint(layer: str, t: torch.Tensor, stride: int = 1, padding: int = 1) -> torch.Tensor:
        t = conv(f'{layer}.pw', t)
        return conv(f'{layer}.dw', t, stride=stride, padding=padding, groups=t.shape[1])

    d1, r1 = F.gelu(conv('c1_d', x)), F.gelu(blueprint('c1_r', x) + x)
    d2, r2 = F.gelu(conv('c2_d', r1)), F.gelu(blueprint('c2_r', r1) + r1)
    d3, r3 = F.gelu(conv('c3_d', r2)), F.gelu(blueprint('c3_r', r2) + r2)
    out = conv('c5', torch.cat([d1, d2, d3, F.gelu(blueprint('c4', r3))], 1))
    small = conv('esa.conv1', out)
    pooled = F.max_pool2d(blueprint('esa.conv2', small, 2, 0), 7, 3)
    pooled = F.gelu(blueprint('esa.conv3', F.gelu(blueprint('esa.conv_max', pooled))))
    pooled = F.interpolate(blueprint('esa.conv3_', pooled), x.shape[2:], mode='bilinear')
    out = out * conv('esa.conv4', pooled + conv('esa.conv_f', small)).sigmoid()
    contrast = out.std((2, 3), correction=0, keepdim=True) + out.mean((2, 3), keepdim=True)
    return out * conv('cca.conv_du.2', conv('cca.conv_du.0', contrast).relu()).sigmoid() + x


def test_forward_equals_a_composition_written_from_the_paper():
    net = build_network({'type': 'BSRN', 'num_feat': 16, 'num_block': 2, 'upscale': 3}).double()
    w, lq = net.state_dict(), torch.rand(2, 3, 17, 20, dtype=torch.float64)
    head = F.conv2d(lq.repeat(1, 4, 1, 1), w['fea_conv.pw.weight'])
    head = F.conv2d(head, w['fea_conv.dw.weight'], w['fea_conv.dw.bias'], padding=1, groups=16)
    first = block(w, 'B1', head)
    joined = F.gelu(F.conv2d(torch.cat([first, block(w, 'B2', first)], 1), w['c1.weight'], w['c1.bias']))
    joined = F.conv2d(F.conv2d(joined, w['c2.pw.weight']), w['c2.dw.weight'], w['c2.dw.bias'], padding=1, groups=16)
    up = 'upsampler.upsampleOneStep.0'
    expected = F.pixel_shuffle(F.conv2d(joined + head, w[f'{up}.weight'], w[f'{up}.bias'], padding=1), 3)
    assert torch.allclose(net(lq), expected, rtol=0, atol=1e-12)


def test_the_gradient_of_a_constant_channel_is_finite():
    """Without, MiPKD's path through BSRN made steps not finite wherever a mixed map saturated a sigmoid."""
    attention = ContrastAttention(16)
    x = torch.ones(1, 16, 4, 4, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad.isfinite().all()


def test_stages_compose_wherever_the_body_is_cut():
    net = build_network({'type': 'BSRN', 'num_feat': 16, 'num_block': 3, 'upscale': 2})
    lq = torch.rand(1, 3, 16, 16)
    feature, context = net.head(lq)
    for cut in range(net.depth + 1):
        middle = net.body(feature, context, 0, cut)
        assert middle.shape[1] == 16 * max(1, cut)
        assert torch.equal(net.tail(net.body(middle, context, cut), context), net(lq))


@pytest.mark.parametrize('scale', PUBLISHED)
def test_parameters_are_the_published_ones(scale):
    assert round(count_parameters(build_network({'type': 'BSRN', 'upscale': scale})), -3) == PUBLISHED[scale]


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match='at least 15 x 15 pixels, not 8 x 20'):
        build_network({'type': 'BSRN', 'num_feat': 16, 'num_block': 1})(torch.rand(1, 3, 8, 20))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the authors' weights and Set5, which are not part of this")
def test_the_authors_weights_measure_what_they_should():
    file, scale = SHARED_DATA / 'weights/net_g_BSRN_x2.pth', 2
    net = build_network({'type': 'BSRN', 'upscale': scale}).eval()
    load_weights(net, file)
    assert len(read_weights(file)) == len(net.state_dict())
    values = []
    for hr_file in sorted((SHARED_DATA / 'benchmarks/Set5/HR').iterdir()):
        hr = read_image(hr_file)
        lr = read_image(Path(SHARED_DATA, f'benchmarks/Set5/LR_bicubic/X2/{hr_file.stem}x2.png'))
        lq = torch.from_numpy(lr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            sr = net(lq)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()[..., ::-1]
        values.append(psnr(sr, hr[: sr.shape[0], : sr.shape[1]], scale, True))
    assert sum(values) / len(values) == pytest.approx(38.08, abs=0.01)
