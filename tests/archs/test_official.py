"""Checkpoints as the authors of EDSR, RCAN and SwinIR distribute them, against networks of their layout."""

import pytest
import torch
from basicsr.archs.swinir_arch import SwinIR
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights, read_weights
from tests.conftest import NETWORKS

MEAN = 255 * torch.tensor([0.4488, 0.4371, 0.4040])


def conv(width_in: int, width_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2)


class MeanShift(nn.Conv2d):
    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.bias.data = sign * MEAN


class Residual(nn.Module):
    """x + scale * body(x): EDSR's block, RCAN's block and RCAN's group."""

    def __init__(self, *layers: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.scale = scale

    def forward(self, x):
        return x + self.scale * self.body(x)


class ChannelAttention(nn.Module):
    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        squeeze, excite = conv(width, width // reduction, 1), conv(width // reduction, width, 1)
        self.conv_du = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, x):
        return x * self.conv_du(self.avg_pool(x))


class Official(nn.Module):
    """Head, body and tail of both programs; images in [0, 255]."""

    def __init__(self, units: list[nn.Module], width: int, scale: int) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv(3, width))
        self.body = nn.Sequential(*units, conv(width, width))
        steps = {2: [2], 3: [3], 4: [2, 2]}[scale]
        up = [layer for s in steps for layer in (conv(width, s * s * width), nn.PixelShuffle(s))]
        self.tail = nn.Sequential(nn.Sequential(*up), conv(width, 3))

    def forward(self, x):
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(x) + x))


def official_edsr(scale: int) -> Official:
    return Official([Residual(conv(8, 8), nn.ReLU(), conv(8, 8), scale=0.1) for _ in range(4)], 8, scale)


def official_rcan(scale: int) -> Official:
    def block() -> Residual:
        return Residual(conv(8, 8), nn.ReLU(), conv(8, 8), ChannelAttention(8, 4))

    return Official([Residual(block(), block(), conv(8, 8)) for _ in range(3)], 8, scale)


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(('kind', 'make'), [('EDSR', official_edsr), ('RCAN', official_rcan)])
def test_official_checkpoints_give_the_official_output(kind, make, scale, tmp_path):
    theirs = make(scale)
    file = tmp_path / 'official.pt'
    torch.save(theirs.state_dict(), file)
    more = {'res_scale': 0.1} if kind == 'EDSR' else {}
    ours = build_network({'type': f'Staged{kind}', **NETWORKS[kind], **more, 'upscale': scale})
    load_weights(ours, file, 'params_ema')
    lq = torch.rand(2, 3, 9, 12)
    with torch.no_grad():
        assert torch.allclose(ours(lq), theirs(255 * lq) / 255, rtol=0, atol=1e-5)
    assert set(read_weights(file)) == set(ours.state_dict())


@pytest.mark.parametrize('key', ['params', 'params_ema'])
def test_swinirs_own_checkpoints_load_for_any_patch_size(key, tmp_path):
    opt = dict(NETWORKS['SwinIR'])
    theirs = SwinIR(**opt, upscale=2).eval()
    torch.save({key: theirs.state_dict()}, tmp_path / 'official.pth')
    lq = torch.rand(1, 3, 16, 24)
    for img_size in (16, 32):
        ours = build_network({'type': 'StagedSwinIR', **opt, 'img_size': img_size, 'upscale': 2}).eval()
        load_weights(ours, tmp_path / 'official.pth', 'params_ema')
        with torch.no_grad():
            assert torch.equal(ours(lq), theirs(lq))


def test_another_networks_official_checkpoint_is_refused(tmp_path):
    torch.save(official_edsr(2).state_dict(), tmp_path / 'edsr.pt')
    net = build_network({'type': 'StagedRCAN', **NETWORKS['RCAN'], 'upscale': 2})
    with pytest.raises(ValueError, match=r'edsr\.pt holds another network than this StagedRCAN'):
        load_weights(net, tmp_path / 'edsr.pt')
