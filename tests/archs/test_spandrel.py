"""A teacher of any architecture that spandrel knows, from its checkpoint alone."""

import re
import sys

import pytest
import torch

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.train import main
from tests.conftest import SCALE, state

spandrel = pytest.importorskip('spandrel', reason="reads other programs' networks; pip install mipkd_sr[spandrel]")


@pytest.fixture
def hat_file(tmp_path):
    """A checkpoint of a tiny HAT, a network that this package has not, whose windows are of 16 pixels."""
    from spandrel.architectures.HAT import HAT

    net = HAT(
        img_size=16, window_size=16, embed_dim=12, depths=(2,), num_heads=(2,), mlp_ratio=2, upscale=SCALE,
        compress_ratio=3, squeeze_factor=4, upsampler='pixelshuffle', num_feat=64,
    )  # fmt: skip
    torch.save({'params_ema': net.state_dict()}, tmp_path / 'hat.pth')
    return tmp_path / 'hat.pth'


@pytest.fixture
def dat_file(tmp_path):
    """A checkpoint of a tiny DAT, under its authors' key; it has statistics of batches, which training would move."""
    from spandrel.architectures.DAT import DAT

    net = DAT(
        img_size=16, embed_dim=32, split_size=[2, 4], depth=[2], num_heads=[2], expansion_factor=2.0, upscale=SCALE
    )  # fmt: skip
    torch.save({'params': net.state_dict()}, tmp_path / 'dat.pth')
    return tmp_path / 'dat.pth'


@torch.no_grad()
def test_its_output_is_spandrels_at_any_size(hat_file):
    net = build_network({'type': 'Spandrel'}).eval()
    load_weights(net, hat_file, 'params_ema')
    theirs = spandrel.ModelLoader('cpu').load_from_file(hat_file).eval()
    assert net.upscale == SCALE
    for height, width in ((16, 16), (20, 35)):
        lq = torch.rand(1, 3, height, width)
        assert torch.allclose(net(lq).clamp(0, 1), theirs(lq), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_images_stay_as_they_are(tmp_path):
    """spandrel's RCAN multiplies its input in place."""
    from tests.archs.test_official import official_rcan

    torch.save(official_rcan(SCALE).state_dict(), tmp_path / 'rcan.pth')
    net = build_network({'type': 'Spandrel'}).eval()
    load_weights(net, tmp_path / 'rcan.pth')
    lq = torch.rand(1, 3, 16, 16)
    before = lq.clone()
    net(lq)
    assert torch.equal(lq, before)


def options(training_options, file, **train):
    opt = training_options('kd', train=train)
    opt['network_t'], opt['path']['pretrain_network_t'] = {'type': 'Spandrel'}, str(file)
    return opt


@pytest.mark.filterwarnings('ignore:torch.meshgrid')  # spandrel's DAT
@pytest.mark.parametrize('name', ['HAT', 'DAT'])
def test_a_student_learns_from_it_with_a_checkpoint_alone(
    name, request, training_options, write_options, tmp_path, capsys
):
    teacher_file = request.getfixturevalue(f'{name.lower()}_file')
    opt = options(training_options, teacher_file, dukd_opt={'type': 'DUKDLoss', 'zoom_out': False})
    file = write_options(opt)
    assert main(['-opt', str(file), '--dry_run']) == 0
    assert re.search(
        rf"teacher: Spandrel's {name}, for objectives of the output, [\d,]+ parameters", capsys.readouterr().out
    )
    assert main(['-opt', str(file)]) == 0
    end = state(tmp_path, 4)
    assert not any('layers' in name or name.startswith('net.') for name in end['networks']['params'])


@pytest.mark.parametrize('arguments', [[], ['--dry_run']])
def test_what_needs_features_is_refused_before_training(arguments, hat_file, training_options, write_options, capsys):
    file = write_options(options(training_options, hat_file, mipkd_opt={'type': 'MiPKDLoss', 'positions': 2}))
    assert main(['-opt', str(file), *arguments]) == 2
    assert re.search(r'mipkd_opt: Spandrel, the teacher, has no head, body and tail', capsys.readouterr().err)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'params': {'weight': torch.zeros(2)}}, 'is of no architecture that spandrel .* loads'),
        (None, 'there is no .*teacher.pth'),
    ],
)
def test_what_spandrel_does_not_know_is_one_sentence(
    content, message, training_options, write_options, tmp_path, capsys
):
    if content:
        torch.save(content, tmp_path / 'teacher.pth')
    file = write_options(options(training_options, tmp_path / 'teacher.pth'))
    for arguments in ([], ['--dry_run']):
        assert main(['-opt', str(file), *arguments]) == 2
        assert re.search(f'path:pretrain_network_t: .*{message}', capsys.readouterr().err)


def test_another_scale_and_an_absent_spandrel_are_said(hat_file, monkeypatch):
    with pytest.raises(ValueError, match='holds HAT of scale 2, not 4'):
        load_weights(build_network({'type': 'Spandrel', 'upscale': 4}), hat_file)
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    with pytest.raises(ValueError, match=r"pip install 'mipkd_sr\[spandrel\]'"):
        load_weights(build_network({'type': 'Spandrel'}), hat_file)
    with pytest.raises(ValueError, match='none was given'):
        build_network({'type': 'Spandrel'})(torch.rand(1, 3, 8, 8))
