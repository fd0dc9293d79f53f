"""L1 in YCbCr, against BasicSR's conversion."""

import pytest
import torch
from basicsr.utils.color_util import rgb2ycbcr_pt
from torch.nn import functional as F

from mipkd_sr.archs.reparam_arch import ReparamSR
from mipkd_sr.losses.ycbcr_loss import YCbCrL1Loss


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_it_is_l1_of_what_basicsr_converts(dtype):
    """In bf16's autocast as well, where BasicSR's product of matrices would round to bf16."""
    pred, target = (torch.rand(2, 3, 8, 10, dtype=torch.float64) for _ in range(2))
    expected = 0.5 * F.l1_loss(rgb2ycbcr_pt(pred), rgb2ycbcr_pt(target))
    with torch.autocast('cpu', dtype, enabled=dtype is torch.bfloat16):
        found = YCbCrL1Loss(0.5)(pred.to(torch.promote_types(dtype, torch.float32)), target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_errors_of_colour_do_not_move_the_convolutions_of_a_luma_network():
    torch.manual_seed(0)
    network = ReparamSR(num_feat=4, num_block=1, expanded=8, luma=True)
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)

    def gradients(loss):
        return torch.autograd.grad(loss(network(lq), gt), list(network.parameters()))

    own = gradients(YCbCrL1Loss(3))
    of_y = gradients(lambda sr, gt: F.l1_loss(rgb2ycbcr_pt(sr, y_only=True), rgb2ycbcr_pt(gt, y_only=True)))
    for (name, _), mine, wanted in zip(network.named_parameters(), own, of_y, strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-4, atol=1e-7) != (name == 'colour.weight'), name
