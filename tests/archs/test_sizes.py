"""The sizes of the networks' feature maps: nothing that an objective asks of a student depends on either network's."""

import pytest
import torch
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.distill.feature_objective import size_of
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.losses.at_loss import ATLoss
from mipkd_sr.losses.crosskd_loss import CrossKDLoss
from mipkd_sr.losses.fakd_loss import FAKDLoss
from mipkd_sr.losses.fitnet_loss import FitNetLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from mipkd_sr.losses.rkd_loss import RKDLoss
from tests.conftest import NETWORKS as OF_PAPERS

NETWORKS = OF_PAPERS | {
    'BSRN': {'num_feat': 16, 'num_block': 3},
    'SPAN': {'feature_channels': 8},
}
WIDER = {'EDSR': 'num_feat', 'RCAN': 'num_feat', 'SwinIR': 'embed_dim', 'BSRN': 'num_feat', 'SPAN': 'feature_channels'}
RANGES = {
    'mipkd': (0.1, 60.0),
    'fitnet': (0.1, 300.0),
    'crosskd': (0.05, 30.0),
    'fakd': (0.001, 30.0),
    'at': (0.5, 500.0),
    'rkd': (0.01, 200.0),
}
"""How many times as large as the pixel term's a term's gradient on a new student may be, whatever the two networks.
They are wide as the methods differ (AT's and RKD's weights are their papers', for networks that classify); without
sizes EDSR's student under BSRN has thousands, and millions."""


@pytest.mark.parametrize('kind_t', NETWORKS)
@pytest.mark.parametrize('kind_s', NETWORKS)
def test_no_term_drowns_the_pixel_term_with_any_pair_of_architectures(kind_s, kind_t):
    torch.manual_seed(2)
    student = build_network({'type': kind_s, **NETWORKS[kind_s], 'upscale': 2})
    wide = NETWORKS[kind_t][WIDER[kind_t]] + 4
    teacher = build_network({'type': kind_t, **NETWORKS[kind_t], WIDER[kind_t]: wide, 'upscale': 2})
    terms = {
        'pixel': ImageObjective('l_pix', nn.L1Loss()),
        'mipkd': MiPKDLoss(drop_probability=0.0, positions=2),
        'fitnet': FitNetLoss(positions=2),
        'crosskd': CrossKDLoss(),
        'fakd': FAKDLoss(positions=2),
        'at': ATLoss(positions=2),
        'rkd': RKDLoss(),
    }
    for term in terms.values():
        term.attach(student, teacher, 16, 2)
    norms = {name: norm_of(student, FrozenTeacher(teacher), {name: term}) for name, term in terms.items()}
    ratios = {name: norm / norms['pixel'] for name, norm in norms.items() if name != 'pixel'}
    assert {name: ratio for name, ratio in ratios.items() if not RANGES[name][0] < ratio < RANGES[name][1]} == {}


def norm_of(student: nn.Module, teacher: FrozenTeacher, terms: dict[str, Objective]) -> float:
    """The norm of the terms' gradient on the student."""
    torch.manual_seed(3)
    losses = DistillStep(student, teacher, terms, 10, 1)(torch.rand(3, 3, 16, 16), torch.rand(3, 3, 32, 32), 1).losses
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(sum(losses.values()), trained, allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None]).norm().item()


@pytest.mark.parametrize('power', [1, 2])
def test_a_map_has_the_size_of_its_mean(power):
    feature = torch.randn(2, 4, 5, 6)
    assert size_of(300 * feature, power).item() == pytest.approx(
        300 * (feature.double().abs() ** power).mean().item() ** (1 / power), rel=1e-6
    )
    assert size_of(300 * feature.half(), power).isfinite()
    assert size_of(torch.zeros(1, 2, 3, 3), power) == 1
    assert not size_of(feature.requires_grad_(), power).requires_grad


class InnerRange(nn.Module):
    """A network whose feature maps are ``factor`` times another's; its output is the other's."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor, self.depth = net, factor, net.depth

    def head(self, lq):
        feature, context = self.net.head(lq)
        return self.factor * feature, context

    def body(self, feature, context, start, stop):
        return self.factor * self.net.body(feature / self.factor, context, start, stop)

    def tail(self, feature, context):
        return self.net.tail(feature / self.factor, context)

    def forward(self, lq):
        return self.net(lq)


@pytest.mark.parametrize('of_student', [True, False])
@pytest.mark.parametrize(
    'objective',
    [
        lambda: MiPKDLoss(positions=2, drop_probability=0.0, ae_until=1.0),
        lambda: MiPKDLoss(positions=2, drop_probability=0.0, path='resampled', distance='l2', encoder='shared'),
        lambda: FitNetLoss(positions=2),
        lambda: CrossKDLoss(),
        lambda: FAKDLoss(positions=2),
        lambda: ATLoss(positions=2),
        lambda: RKDLoss(),
    ],
    ids=['MiPKD', 'MiPKD resampled', 'FitNet', 'CrossKD', 'FAKD', 'AT', 'RKD'],
)
def test_the_range_inside_a_network_changes_no_gradient(objective, of_student):
    gradients = []
    for factor in (1.0, 1000.0):
        torch.manual_seed(4)
        student, teacher = (build_network({'type': 'EDSR', **OF_PAPERS['EDSR'], 'upscale': 2}) for _ in range(2))
        own = InnerRange(student, factor if of_student else 1.0)
        other = InnerRange(teacher, 1.0 if of_student else factor)
        term = objective()
        term.attach(own, other, 16, 2)
        step = DistillStep(own, FrozenTeacher(other), {'term': term}, 10, 1)
        losses = step(torch.rand(3, 3, 16, 16), torch.rand(3, 3, 32, 32), 1).losses
        sum(losses.values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    assert torch.allclose(gradients[1], gradients[0], rtol=0, atol=2e-3 * gradients[0].abs().max())
