"""The names and the form in which other programs expect a network's weights."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mipkd_sr.archs.edsr_arch import StagedEDSR
from mipkd_sr.archs.official import to_official
from mipkd_sr.archs.rcan_arch import StagedRCAN
from mipkd_sr.runtime.errors import OptionError, sentence

LAYOUTS = ('basicsr', 'authors', 'spandrel')
"""BasicSR's names; those of the networks' authors; what spandrel (and so chaiNNer and others) loads."""
OPEN = 30.0
"""A logit whose sigmoid is 1 to the last bit."""
MEAN = (0.4488, 0.4371, 0.4040)
"""The mean of DIV2K, which the authors' programs have in their code."""


def weights_in_layout(net: nn.Module, layout: str) -> dict[str, Tensor]:
    """A network's weights in a layout.

    EDSR and RCAN have a layout of their authors'; SwinIR's, SPAN's, SPANF's and BSRN's authors use the names here.
    spandrel loads those of RCAN, SwinIR and SPAN, and knows no EDSR: for it an EDSR is written as an RCAN that computes
    the same, see ``edsr_as_rcan``.

    Args:
        net: The network.
        layout: One of ``LAYOUTS``.

    Raises:
        OptionError: If a program that reads that layout would compute something else.
    """
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    if layout == 'basicsr' or not isinstance(net, StagedEDSR | StagedRCAN):
        return weights
    if net.img_range != 255 or not torch.allclose(net.mean.flatten(), torch.tensor(MEAN)):
        raise OptionError(
            'network_g',
            f"its img_range or rgb_mean is not its authors' (255, {MEAN}), which the {layout} layout implies.",
        )
    if isinstance(net.conv_last, nn.Identity):
        raise OptionError('network_g:upsampler', f'is not pixelshuffle, which the {layout} layout implies.')
    if isinstance(net, StagedRCAN) and any(getattr(module, 'res_scale', 1) != 1 for module in net.modules()):
        raise OptionError('network_g:res_scale', f"is not 1, which RCAN's {layout} layout implies.")
    if layout == 'spandrel' and isinstance(net, StagedEDSR):
        return edsr_as_rcan(net)
    return to_official(weights, net.mean)


@torch.no_grad()
def check_by_spandrel(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights by spandrel, where it is installed, and compare what it computes with the network.

    Raises:
        OptionError: If it knows no such network, or computes something else.
    """
    if find_spec('spandrel') is None:
        return
    spandrel: Any = import_module('spandrel')
    name = type(net).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            theirs = spandrel.ModelLoader('cpu').load_from_state_dict(dict(weights)).eval()
        lq = torch.rand(1, theirs.input_channels, 24, 24, generator=torch.Generator().manual_seed(0))
        same = torch.allclose(theirs.model(lq.clone()), net(lq), rtol=0, atol=1e-4)  # some change what they get
    except Exception as error:  # spandrel's own, or what a network of another form raises
        raise OptionError('--layout', f'spandrel does not load this {name} ({sentence(error)[:200]})') from None
    if not same:
        raise OptionError('--layout', f'spandrel takes these weights of {name} for another network; leave it out.')


def edsr_as_rcan(net: StagedEDSR) -> dict[str, Tensor]:
    """The weights, in its authors' layout, of an RCAN that computes what an EDSR does.

    EDSR: ``y = x + C(b)`` with ``b`` its blocks' output for ``x`` and C the convolution after them. RCAN with one group
    g: ``y = x + D(g)``, ``g = x + E(b)``. With D the identity and E = 2 C that is 2 (x + C(b)), and the next
    convolution is halved; both are exact. Channel attention with a weight of 0 and a large bias multiplies by 1, and
    the residual scale goes into each block's second convolution.
    """
    width = len(net.get_parameter('conv_first.bias'))
    blocks: list[Any] = list(net.body)
    found = {}
    for name, value in to_official(net.state_dict(), net.mean).items():
        parts = name.split('.')
        if parts[0] != 'body':
            found[name] = value
        elif len(parts) == 3:  # the convolution after the blocks
            found[f'body.0.body.{parts[1]}.{parts[2]}'] = 2 * value
        else:
            scale = blocks[int(parts[1])].res_scale if parts[3] == '2' else 1
            found[f'body.0.body.{parts[1]}.body.{parts[3]}.{parts[4]}'] = scale * value
    for block in range(net.depth):
        attention = f'body.0.body.{block}.body.3.conv_du'
        found[f'{attention}.0.weight'], found[f'{attention}.0.bias'] = torch.zeros(1, width, 1, 1), torch.zeros(1)
        found[f'{attention}.2.weight'] = torch.zeros(width, 1, 1, 1)
        found[f'{attention}.2.bias'] = torch.full((width,), OPEN)
    identity = torch.zeros(width, width, 3, 3)
    identity[:, :, 1, 1] = torch.eye(width)
    found['body.1.weight'], found['body.1.bias'] = identity, torch.zeros(width)
    found['tail.0.0.weight'] = found['tail.0.0.weight'] / 2
    return {name: value.contiguous() for name, value in found.items()}
