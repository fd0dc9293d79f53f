"""Students in the layouts that other programs read."""

import pytest
import torch
import yaml

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main
from mipkd_sr.deploy.layouts import weights_in_layout
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.runtime.errors import OptionError
from tests.archs.test_official import official_edsr, official_rcan
from tests.conftest import NETWORKS


def network(kind: str, scale: int = 2, **changes):
    options = NETWORKS.get(kind, {'feature_channels': 8})
    net = build_network({'type': kind, **options, 'upscale': scale, **changes}).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(('conv_last', 'upsampler')):
                parameter.mul_(0.01)  # a picture about the mean, not noise of a hundred times its range
    return net


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(('kind', 'theirs'), [('EDSR', official_edsr), ('RCAN', official_rcan)])
@torch.no_grad()
def test_the_authors_programs_compute_what_the_student_does(kind, theirs, scale):
    net = network(kind, scale, **({'res_scale': 0.1} if kind == 'EDSR' else {}))
    program = theirs(scale)
    program.load_state_dict(weights_in_layout(net, 'authors'), strict=True)
    lq = torch.rand(2, 3, 9, 12)
    assert (program(255 * lq) / 255 - net(lq)).abs().max() < 1e-6


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(
    ('kind', 'read_as', 'changes'),
    [
        ('EDSR', 'RCAN', {}),
        ('EDSR', 'RCAN', {'res_scale': 0.1}),
        ('RCAN', 'RCAN', {}),
        ('SwinIR', 'SwinIR', {}),
        ('SPAN', 'SPAN', {}),
    ],
)
@torch.no_grad()
def test_spandrel_loads_a_student_and_computes_the_same(kind, read_as, changes, scale, tmp_path):
    spandrel = pytest.importorskip('spandrel', reason="reads other programs' networks; pip install mipkd_sr[spandrel]")
    net = network(kind, scale, **changes)
    options = {'type': kind, **NETWORKS.get(kind, {'feature_channels': 8}), 'upscale': scale, **changes}
    (tmp_path / 'student.yml').write_text(yaml.safe_dump({'network_g': options}))
    torch.save({'params': net.state_dict()}, tmp_path / 'student.pth')
    command = ['export', '-opt', str(tmp_path / 'student.yml'), '--weights', str(tmp_path / 'student.pth')]
    assert main([*command, '--layout', 'spandrel', '--out', str(tmp_path / 'out.pth')]) == 0
    theirs = spandrel.ModelLoader('cpu').load_from_file(tmp_path / 'out.pth').eval()
    assert (theirs.architecture.id, theirs.scale) == (read_as, scale)
    lq = torch.rand(1, 3, 16, 24)
    assert (theirs.model(lq.clone()) - net(lq)).abs().max() < 1e-6


def test_what_a_layout_cannot_say_is_refused():
    with pytest.raises(OptionError, match='its img_range or rgb_mean is not'):
        weights_in_layout(network('EDSR', img_range=1.0), 'authors')
    with pytest.raises(OptionError, match='network_g:upsampler: is not pixelshuffle'):
        weights_in_layout(network('EDSR', upsampler='pixelshuffledirect'), 'spandrel')
    with pytest.raises(OptionError, match='network_g:res_scale: is not 1'):
        weights_in_layout(network('RCAN', res_scale=0.5), 'spandrel')


def test_a_layout_of_onnx_is_refused_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / 's.yml').write_text(yaml.safe_dump({'network_g': {'type': 'EDSR', **NETWORKS['EDSR'], 'upscale': 2}}))
    torch.save({'params': network('EDSR').state_dict()}, tmp_path / 's.pth')
    command = ['export', '-opt', str(tmp_path / 's.yml'), '--weights', str(tmp_path / 's.pth')]
    assert main([*command, '--layout', 'authors', '--out', str(tmp_path / 'out' / 's.onnx')]) == 2
    assert '--layout: is for weights' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert main([*command, '--layout', 'authors', '--out', str(tmp_path / 's_authors.pth')]) == 0
    assert 'head.0.weight' in load_file(tmp_path / 's_authors.pth')


def test_what_spandrel_does_not_load_is_refused(tmp_path, capsys):
    pytest.importorskip('spandrel', reason="reads other programs' networks; pip install mipkd_sr[spandrel]")
    opt = {'type': 'BSRN', 'num_feat': 32, 'num_block': 2, 'upscale': 2}
    net = build_network(opt)
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({'network_g': opt}))
    torch.save({'params': net.state_dict()}, tmp_path / 'own.pth')
    arguments = ['-opt', str(tmp_path / 'own.yml'), '--weights', str(tmp_path / 'own.pth')]
    assert main(['export', *arguments, '--layout', 'spandrel', '--out', str(tmp_path / 'out.pth')]) == 2
    assert '--layout: spandrel does not load this BSRN' in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()
