"""Tiles, self-ensembles and batches: the same result as one image as a whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mipkd_sr.archs import build_network
from mipkd_sr.evaluation.evaluate import evaluate, same_size_batches
from mipkd_sr.evaluation.inference import prepare_network, run_tiled, self_ensemble
from mipkd_sr.models import DistillModel
from mipkd_sr.train import main as train
from tests.conftest import NETWORKS, STUDENT

REACH = 1 + 2 * 2 + 1 + 1 + 1
"""Of STUDENT's receptive field in LR pixels: the first layer, two blocks of two, one after the body, two at the end."""


class Recording:
    """A network that notes the sizes of its inputs."""

    def __init__(self, net):
        self.net, self.sizes = net, []

    def __call__(self, lq):
        self.sizes.append(tuple(lq.shape[-2:]))
        return self.net(lq)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), tile=st.integers(3, 40), scale=st.sampled_from([2, 3, 4]))
def test_tiles_are_exact_when_their_surroundings_cover_the_receptive_field(height, width, tile, scale):
    torch.manual_seed(0)
    net = Recording(build_network({**STUDENT, 'upscale': scale}))
    overlap = REACH + (scale == 4)  # upsampling by 4 has a convolution more
    lq = torch.rand(1, 3, height, width)
    with torch.no_grad():
        tiled = run_tiled(net, lq, tile, overlap)
        assert max(max(size) for size in net.sizes) <= tile + 2 * overlap  # what bounds the memory
        assert torch.allclose(tiled, net(lq), rtol=0, atol=1e-5)


def test_tiles_with_too_little_around_them_are_not_exact():
    net = build_network(STUDENT)
    torch.nn.init.dirac_(net.conv_after_body.weight)
    lq = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert not torch.allclose(run_tiled(net, lq, 10, 0), net(lq), rtol=0, atol=1e-4)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (3, 5), (8, 8), (17, 30)])
def test_every_network_takes_every_size(kind, height, width):
    net = build_network({'type': kind, **NETWORKS[kind], 'upscale': 2}).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, height, width)).shape == (1, 3, 2 * height, 2 * width)
        run = prepare_network(net, ensemble=True, tile=8, overlap=4)
        assert run(torch.rand(1, 3, height, width)).shape == (1, 3, 2 * height, 2 * width)


def test_self_ensemble_is_the_mean_over_the_eight_symmetries_written_out():
    net = build_network(STUDENT).eval()
    lq = torch.rand(2, 3, 7, 9)
    turns = [
        (lambda x: x, lambda x: x),
        (lambda x: x.flip(-1), lambda x: x.flip(-1)),
        (lambda x: x.flip(-2), lambda x: x.flip(-2)),
        (lambda x: x.flip(-1, -2), lambda x: x.flip(-1, -2)),
        (lambda x: x.mT, lambda x: x.mT),
        (lambda x: x.mT.flip(-1), lambda x: x.flip(-1).mT),
        (lambda x: x.mT.flip(-2), lambda x: x.flip(-2).mT),
        (lambda x: x.mT.flip(-1, -2), lambda x: x.flip(-1, -2).mT),
    ]
    with torch.no_grad():
        expected = torch.stack([back(net(there(lq))) for there, back in turns]).mean(0)
        assert torch.allclose(self_ensemble(net, lq), expected, atol=1e-6)
        assert not torch.allclose(net(lq), expected, atol=1e-4)


def image(number, height, width):
    return {
        'lq': torch.rand(1, 3, height, width),
        'gt': torch.rand(1, 3, 2 * height, 2 * width),
        'lq_path': [f'lq/{number}.png'],
        'gt_path': [f'gt/{number}.png'],
    }


def test_images_of_one_size_share_a_batch_and_keep_their_order_and_values():
    images = [image(0, 8, 9), image(1, 9, 8), image(2, 8, 9), image(3, 8, 9), image(4, 30, 30), image(5, 9, 8)]
    order: list[str] = []
    batches = list(same_size_batches(images, 2 * 8 * 9, order))
    assert order == ['0', '1', '2', '3', '4', '5']
    assert [batch['names'] for batch in batches] == [['0', '2'], ['4'], ['1', '5'], ['3']]
    for batch in batches:
        for place, name in enumerate(batch['names']):
            assert torch.equal(batch['lq'][place], images[int(name)]['lq'][0])
            assert torch.equal(batch['gt'][place], images[int(name)]['gt'][0])
            assert batch['gt_path'][place] == f'gt/{name}.png'


def test_results_are_in_the_test_sets_order_and_measured_against_the_reference(monkeypatch):
    monkeypatch.setattr('mipkd_sr.evaluation.evaluate.IMAGES_WAITING', 1)
    nets = {name: build_network({**STUDENT, 'num_feat': width}) for name, width in (('a', 8), ('b', 4))}
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}}
    images = [image(i, 20 + i % 2, 20) for i in range(5)]
    found = evaluate(nets, images, metrics, torch.device('cpu'), reference='b')
    assert list(found['a']) == list(found['b']) == ['0', '1', '2', '3', '4']
    assert list(found['a']['0']) == ['psnr', 'psnr_to_b']
    assert list(found['b']['0']) == ['psnr']
    assert all(net.training for net in nets.values())


def test_the_body_alone_is_in_bf16_and_windows_are_whole_all_the_same():
    net = build_network({**STUDENT, 'num_feat': 8}).eval()
    lq = torch.rand(1, 3, 12, 14)
    with torch.no_grad():
        feature, context = net.head(lq)
        with torch.autocast('cpu', torch.bfloat16):
            feature = net.body(feature, context)
        expected = net.tail(feature.float(), context)
        assert torch.equal(prepare_network(net, bf16=True)(lq), expected)
        assert not torch.equal(net(lq), expected)
        seen = Recording(net)
        seen.window_size = 8
        assert prepare_network(seen, bf16=True)(lq).shape == expected.shape
    assert seen.sizes == [(16, 16)]


def test_a_validation_is_run_in_tiles_and_says_how_if_memory_is_short(
    training_options, write_options, tmp_path, monkeypatch, capsys
):
    sizes, infer = [], DistillModel.infer

    def noted(self, net, lq):
        sizes.append(max(lq.shape[-2:]))
        return infer(self, net, lq)

    monkeypatch.setattr(DistillModel, 'infer', noted)
    opt = training_options(train={'total_iter': 1}, val={'val_freq': 1, 'tile': 8, 'tile_overlap': 4})
    assert train(['-opt', str(write_options(opt))]) == 0
    assert 8 < max(sizes) <= 8 + 2 * 4

    def run_out(*_):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 7 GiB.')

    monkeypatch.setattr(DistillModel, 'infer', run_out)
    assert train(['-opt', str(write_options(opt))]) == 4
    assert 'needs more memory than there is; set val:tile, to 256 or less.' in capsys.readouterr().err
