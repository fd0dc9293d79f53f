"""The cost of the papers' networks, against MiPKD's Table 1."""

import pytest
import torch

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main
from mipkd_sr.commands.benchmark.complexity import networks_of
from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters, measure_speed
from mipkd_sr.evaluation.published import read_published
from tests.conftest import NETWORKS, STUDENT

PUBLISHED = {name.removesuffix(', costs'): own['costs'] for name, own in read_published().items() if 'costs' in own}
NETWORK = {name.partition(',')[0]: entry['network'] for name, entry in networks_of('papers').items()}


@pytest.mark.parametrize(('row', 'published'), PUBLISHED.items())
def test_parameters_and_multiply_adds_are_the_papers(row, published):
    net = build_network(NETWORK[row])
    assert count_parameters(net) == pytest.approx(published['parameters'], abs=0.005e6)
    assert count_multiply_adds(net, 256) == pytest.approx(published['multiply_adds'], abs=0.005e9)


def test_multiply_adds_of_a_small_network_counted_by_hand():
    """EDSR with 8 channels and 2 blocks at x2, on 10 x 10 pixels: every convolution is 3 x 3."""
    net = build_network(STUDENT)
    at_lr = 3 * 8 + 5 * 8 * 8 + 8 * 32
    at_hr = 8 * 3
    assert count_multiply_adds(net, 10) == 9 * (at_lr * 100 + at_hr * 400)
    assert net.training
    assert next(net.parameters()).device.type == 'cpu'


@pytest.mark.parametrize('kind', NETWORKS)
def test_speed_and_memory_are_measured(kind):
    net = build_network({'type': kind, **NETWORKS[kind], 'upscale': 2})
    rate, memory = measure_speed(net, 16, torch.device('cpu'), repeats=2)
    assert rate > 0
    assert memory > 1


def test_every_network_of_the_papers_test_is_counted_beside_the_published(capsys):
    """Nothing is run: images have no values, and equal networks are counted once."""
    assert main(['benchmark', 'complexity', '-opt', 'papers', '--repeats', '0']) == 0
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells[1:] for cells in lines if len(cells) == 5}
    assert list(rows)[2:] == list(networks_of('papers'))
    assert rows['EDSR student of 16 blocks'] == ['1.52', '1.52', '129.97', '129.97']
    assert rows['SwinIR student, DUKD'] == rows['SwinIR student, scratch']
    assert (rows['bicubic'][0], rows['bicubic'][1::2]) == ('0.00', ['-', '-'])
