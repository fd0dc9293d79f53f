"""The cost of the papers' networks, against MiPKD's Table 1."""

import pytest
import torch

from mipkd_sr.archs import build_network
from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters, measure_speed
from mipkd_sr.options.reading import read_options

from .conftest import NETWORKS, ROOT, STUDENT

TABLE_1 = {
    'EDSR teacher': (43.09, 3293.35),
    'EDSR student, scratch': (2.70, 207.28),
    'EDSR student of 16 blocks': (1.52, 129.97),
    'RCAN teacher': (15.59, 1044.03),
    'RCAN student, scratch': (5.17, 366.98),
    'SwinIR teacher': (11.90, 861.27),
    'SwinIR student, scratch': (1.24, 121.48),
}
"""Parameters in millions, and multiply-adds in 10^9 for an input of 256 x 256 pixels, at x4."""


@pytest.mark.parametrize('name', TABLE_1)
def test_parameters_and_multiply_adds_are_the_papers(name):
    networks = read_options(ROOT / 'options/test/papers.yml').data['networks']
    network = networks.get(name, networks['EDSR student, scratch'])['network']
    net = build_network(network | {'num_block': 16} if name not in networks else network)
    parameters, multiply_adds = TABLE_1[name]
    assert count_parameters(net) / 1e6 == pytest.approx(parameters, abs=0.005)
    assert count_multiply_adds(net, 256) / 1e9 == pytest.approx(multiply_adds, abs=0.005)


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
