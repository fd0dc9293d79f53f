"""Exported files: each is run by its runtime, compared with PyTorch, and not left behind where it differs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.exported_arch import in_windows, open_exported, run_array
from mipkd_sr.archs.weights import fuse, load_weights
from mipkd_sr.cli import main
from mipkd_sr.deploy import exporting as exporting
from mipkd_sr.deploy.exporting import FORMATS, export
from mipkd_sr.deploy.shapes import Limits, Padded, TransposedShuffle, limits_of, with_transposed_shuffles
from mipkd_sr.runtime.errors import OptionError, RunError
from tests.conftest import NETWORKS, STUDENT

SMALL = {
    'EDSR': {'type': 'StagedEDSR', **NETWORKS['EDSR'], 'upscale': 2},
    'SPAN': {'type': 'SPAN', 'feature_channels': 8, 'upscale': 2},
    'SPANF': {'type': 'SPANF', 'feature_channels': 8, 'upscale': 2},
    'RRDBNet': {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'scale': 2},
    'ReparamSR': {'type': 'ReparamSR', 'num_feat': 8, 'num_block': 2, 'luma': True, 'upscale': 2},
    'BSRN': {'type': 'BSRN', 'num_feat': 16, 'num_block': 1, 'upscale': 2},
    'SwinIR': {'type': 'StagedSwinIR', **NETWORKS['SwinIR'], 'depths': [2], 'num_heads': [2], 'upscale': 2},
}
LIMITS = {'RRDBNet': Limits(2, 2, 2), 'BSRN': Limits(2, 15, 1), 'SwinIR': Limits(2, 16, 8, True)}


def needs(name: str) -> None:
    for module in FORMATS[name].needs:
        pytest.importorskip(module, reason=f'{name} needs {module}')


def network(name: str) -> nn.Module:
    return build_network(SMALL[name]).eval()


@pytest.mark.parametrize('name', SMALL)
def test_the_sizes_that_a_network_takes_are_found(name: str) -> None:
    assert limits_of(network(name)) == LIMITS.get(name, Limits(2))


@pytest.mark.parametrize('name', ['SPANF', 'RRDBNet', 'BSRN'])
@pytest.mark.filterwarnings('ignore')
def test_onnx_takes_every_size_that_it_says(name: str, tmp_path: Path) -> None:
    """SPAN and SPANF were for one image, RRDBNet at x2 for even sides, BSRN for 15 pixels and more."""
    needs('onnx')
    net = network(name)
    (said,) = export(net, tmp_path / 'net.onnx')
    assert 'images of any size' in said
    opened, limits = open_exported(tmp_path / 'net.onnx'), LIMITS.get(name, Limits(2))
    for shape in [(1, 3, 8, 8), (3, 3, 31, 9), (1, 3, 1, 7)]:
        lq = torch.rand(shape)
        below, beside = limits.fit(shape[2]) - shape[2], limits.fit(shape[3]) - shape[3]
        padded = np.pad(lq.numpy(), ((0, 0), (0, 0), (0, below), (0, beside)), 'edge')
        with torch.no_grad():
            expected = net(torch.from_numpy(padded))[..., : 2 * shape[2], : 2 * shape[3]]
        assert (run_array(lambda x: opened.run(x), lq) - expected).abs().max() < 1e-4


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('name', [name for name, form in FORMATS.items() if form.run])
@pytest.mark.filterwarnings('ignore')
def test_every_format_is_run_by_its_runtime(name: str, half: bool, tmp_path: Path) -> None:
    needs(name)
    net = network('EDSR')
    size = (24, 40)
    (said,) = export(net, tmp_path / 'net', [name], size, half)
    assert 'as PyTorch to' in said
    file = tmp_path / f'net{FORMATS[name].ending}'
    assert file.stat().st_size
    assert file.name in (tmp_path / 'net.md').read_text()
    assert not list(tmp_path.glob('.*'))
    lq = torch.rand(1, 3, *size)
    found = open_exported(file, threads=1).run(lq.numpy())
    with torch.no_grad():
        assert np.abs(found - net(lq).numpy()).max() < (0.02 if half else 1e-4)


@pytest.mark.filterwarnings('ignore')
def test_core_ml_has_images_of_the_size(tmp_path: Path) -> None:
    needs('coreml')
    (said,) = export(network('EDSR'), tmp_path / 'net', ['coreml'], (24, 40))
    assert 'specification as asked for' in said
    manifest = json.loads((tmp_path / 'net.mlpackage' / 'Manifest.json').read_text())
    assert manifest['rootModelIdentifier'] in manifest['itemInfoEntries']


@pytest.mark.filterwarnings('ignore')
def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path: Path, monkeypatch) -> None:
    needs('onnx')
    write = FORMATS['onnx'].write

    def wrong(net: nn.Module, file: Path, plan: object) -> None:
        write(build_network(SMALL['EDSR']).eval(), file, plan)

    monkeypatch.setitem(exporting.FORMATS, 'onnx', FORMATS['onnx']._replace(write=wrong))
    with pytest.raises(RunError, match='differs from PyTorch by'):
        list(export(network('EDSR'), tmp_path / 'net', ['onnx', 'pth']))
    assert {file.name for file in tmp_path.iterdir()} == {'net.pth', 'net.md'}, 'the others are written'


def test_a_transposed_convolution_is_the_pixel_shuffle_to_the_last_bit() -> None:
    for channels, scale in ((3, 2), (3, 4), (5, 3)):
        feature = torch.randn(2, channels * scale**2, 7, 5, dtype=torch.float64)
        shuffled = TransposedShuffle(channels, scale).double()(feature)
        assert torch.equal(shuffled, nn.PixelShuffle(scale)(feature))
    net, lq = network('SPANF').double(), torch.rand(1, 3, 9, 11, dtype=torch.float64)
    expected = net(lq)
    changed = with_transposed_shuffles(network('SPANF'))
    changed.load_state_dict(net.state_dict())
    assert any(isinstance(module, TransposedShuffle) for module in changed.modules())
    assert torch.equal(changed.double()(lq), expected)


def test_windows_of_one_size_make_the_whole_image() -> None:
    """A 3 x 3 mean reaches one pixel, so every border between windows must be invisible."""

    def net(lq: torch.Tensor) -> torch.Tensor:
        assert lq.shape[-2:] == (20, 24)
        return (
            nn.functional.avg_pool2d(nn.functional.pad(lq, (1, 1, 1, 1), 'replicate'), 3, 1)
            .repeat_interleave(2, -1)
            .repeat_interleave(2, -2)
        )

    for size in ((20, 24), (7, 5), (21, 25), (64, 61)):
        lq = torch.rand(1, 3, *size)
        padded = nn.functional.pad(lq, (1, 1, 1, 1), 'replicate')
        expected = nn.functional.avg_pool2d(padded, 3, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)
        torch.testing.assert_close(in_windows(net, lq, (20, 24)), expected)


def test_networks_that_train_as_several_are_fused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.is_fused = False

        def fuse(self) -> None:
            self.is_fused = True

    net = nn.Sequential(Twice())
    assert fuse(net) is net
    assert net[0].is_fused


def test_exported_weights_are_the_fused_networks_and_the_network_stays_as_it_is(tmp_path: Path) -> None:
    net = network('ReparamSR').train()
    list(export(net, tmp_path / 'net.pth'))
    assert any(name.endswith('squeeze') for name in net.state_dict())
    assert net.training
    again = build_network(SMALL['ReparamSR'] | {'fused': True})
    load_weights(again, tmp_path / 'net.pth')
    lq = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.allclose(again(lq), net(lq), rtol=0, atol=1e-6)


def test_padding_continues_the_edge() -> None:
    lq = torch.rand(1, 3, 3, 5)
    seen = []
    Padded(nn.Sequential(nn.Identity()), Limits(1, 8, 4))(lq)
    net = Padded(nn.Module(), Limits(1, 8, 4))
    net.net.forward = lambda x: seen.append(x) or x
    assert torch.equal(net(lq), lq)
    assert np.array_equal(seen[0].numpy(), np.pad(lq.numpy(), ((0, 0), (0, 0), (0, 5), (0, 3)), 'edge'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--to', 'tensorrt'], "--to: there is no format 'tensorrt'; there are: onnx, openvino"),
        (['--to', 'coreml'], '--size: is missing: coreml'),
        (['--to', 'pth', 'litert'], '--size: is missing: litert'),
        (['--to', 'onnx', '--layout', 'authors'], '--layout: is for weights'),
        (['--to', 'openvino'], "openvino needs absent, not installed here; pip install 'mipkd_sr[device]'"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence_before_any_work(arguments, message, tmp_path, capsys, monkeypatch):
    for name, form in FORMATS.items():
        monkeypatch.setitem(exporting.FORMATS, name, form._replace(needs=('absent',) if name == 'openvino' else ()))
    assert main(['export', '--scale', '2', '--out', str(tmp_path / 'out' / 'net'), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    needs('onnx')
    with pytest.raises(OptionError, match='multiples of 8, for this network; not 20x24'):
        list(export(network('SwinIR'), tmp_path / 'net.onnx', size=(20, 24)))


@pytest.mark.filterwarnings('ignore')
def test_a_file_is_a_row_of_a_test(pairs: Path, tmp_path: Path, capsys) -> None:
    """The file's row is the network's, to what rounding to 8 bits leaves of 1e-6."""
    needs('onnx')
    net = build_network(STUDENT).eval()
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    list(export(net, tmp_path / 'net.onnx'))
    list(export(net, tmp_path / 'fixed.onnx', size=(20, 20)))
    entries = {
        name: {'network': {'type': 'Exported', 'file': str(tmp_path / f'{name}.onnx'), 'upscale': 2}}
        for name in ('net', 'fixed')
    }
    options = {
        'name': 'rows',
        'scale': 2,
        'datasets': {'test_1': {'name': 'w', 'dataroot_gt': f'{pairs}/HR', 'dataroot_lq': f'{pairs}/LR_x2'}},
        'networks': {'torch': {'network': STUDENT, 'path': str(tmp_path / 'net.pth')}, **entries},
        'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}}},
    }
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(options))
    assert main(['test', '-opt', str(tmp_path / 'test.yml')]) == 0
    results = json.loads(next((tmp_path / 'results').rglob('results.json')).read_text())
    means = [np.mean([image['psnr'] for image in row['images']['w'].values()]) for row in results.values()]
    assert len(means) == 3
    assert {name for name, row in results.items() if row['parameters'] is None} == {'net', 'fixed'}
    assert max(means) - min(means) < 0.01
    options['networks']['net']['network']['file'] = 'absent.onnx'
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(options))
    assert main(['test', '-opt', str(tmp_path / 'test.yml')]) == 2
    assert 'there is no absent.onnx' in capsys.readouterr().err


def test_a_layer_that_ncnn_lacks_is_one_sentence(tmp_path: Path) -> None:
    """The runtime itself would end the process."""
    needs('ncnn')
    (tmp_path / 'net.ncnn.param').write_text('7767517\n2 2\nInput in0 0 1 in0\ntorch.unknown unknown 1 1 in0 out0\n')
    (tmp_path / 'net.ncnn.bin').write_bytes(b'')
    with pytest.raises(RunError, match='ncnn lacks one of its layers'):
        open_exported(tmp_path / 'net.ncnn.param')
