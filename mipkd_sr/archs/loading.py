"""A network with its weights, as an option file names it: for training, testing and using it."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from basicsr.utils import get_root_logger
from torch import Tensor, nn
from typing_extensions import override

from mipkd_sr.archs import build_network, check_output
from mipkd_sr.archs.weights import fuse, load_weights
from mipkd_sr.imresize import imresize
from mipkd_sr.runtime.errors import OptionError, blamed_on

PROBE_SIZE = 48
"""Side of the LR images, in pixels, with which a network is tried."""


@dataclass(frozen=True)
class NetworkOptions:
    """What an option file says of one network."""

    network: Mapping[str, Any]  # its class and arguments
    file: str | None  # the checkpoint of its weights, or None
    param_key: str  # which weights of that file
    key: str  # the option that names the network, for errors
    file_key: str  # the option that names the checkpoint, for errors
    precision: str | None = None  # of a teacher's own forward, or None
    strict: bool = True  # whether the file must fit exactly
    needs_file: bool = False  # whether a network that has parameters must have a file
    any_scale: bool = False  # whether it may be of another scale, and then has its output resized


class Resized(nn.Module):
    """A network of another scale, whose output (B x 3 x sH x sW) MATLAB's antialiased bicubic resizes by ``factor``."""

    def __init__(self, net: nn.Module, factor: Fraction) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    @override
    def forward(self, lq: Tensor) -> Tensor:
        return imresize(self.net(lq), self.factor)


def scale_of(net: nn.Module, opt: Mapping[str, Any]) -> int | None:
    """A network's scale, as it or its options say; BasicSR's RRDBNet calls it ``scale``."""
    found = getattr(net, 'upscale', opt.get('upscale', getattr(net, 'scale', None)))
    return found if isinstance(found, int) else None


def load_network(options: NetworkOptions, scale: int | None, lq_size: int = PROBE_SIZE) -> nn.Module:
    """Build a network, look at the shape of its output for LR images of a side of ``lq_size``, and load its weights.

    ``scale`` is the run's, or None for the network's own.

    Raises:
        OptionError: If it cannot be built, is of another scale, does not return one SR image for an LR image, or its
            weights are absent or another network's.
    """
    with blamed_on(options.key):
        net = build_network(options.network)
        own_scale = scale_of(net, options.network)
        if own_scale is not None and scale not in (None, own_scale) and not options.any_scale:
            raise OptionError(f'{options.key}:upscale', f'is {own_scale}, but scale is {scale}; make them the same.')
    if options.file:
        try:
            load_weights(net, options.file, options.param_key, options.strict)
        except ValueError as error:
            raise OptionError(options.file_key, f'{error}; give the file of this network.') from None
    elif options.needs_file and any(parameter.numel() for parameter in net.parameters()):
        raise OptionError(options.file_key, 'is missing: the file of its weights.')
    own_scale = scale_of(net, options.network) or scale
    if scale is not None and own_scale != scale:
        get_root_logger().info(f'{options.key} is of scale {own_scale}: its output is resized to that of {scale}')
        net = Resized(net, Fraction(scale, own_scale))
    with blamed_on(options.key):
        check_output(net, scale or own_scale, lq_size)  # now, as the file may say what a network is made of
    return net


def load_trained(options: NetworkOptions, scale: int | None) -> nn.Module:
    """As ``load_network``, for use: in evaluation mode, and fused; see ``mipkd_sr.archs.weights.fuse``."""
    return fuse(load_network(options, scale).eval())
