"""Running a network on images of any size: as a whole, in tiles, or as the mean over eight turned copies."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mipkd_sr.archs.staged import is_staged, padded

Network = Callable[[Tensor], Tensor]
"""LR images (B x 3 x H x W, values in [0, 1]) -> SR images (B x 3 x sH x sW)."""


def self_ensemble(net: Network, lq: Tensor) -> Tensor:
    """The mean of the outputs for the eight turned and mirrored copies of an image, B x 3 x H x W, each turned back.

    EDSR, https://arxiv.org/abs/1707.02921, Section 3.3, there called geometric self-ensemble; a plus behind a network's
    name says that a table has it. It takes eight times the time.
    """
    total: Tensor | None = None
    for mirrored in (False, True):
        for turns in range(4):
            copy = torch.rot90(lq.flip(-1) if mirrored else lq, turns, (-2, -1))
            output = torch.rot90(net(copy), -turns, (-2, -1))
            output = output.flip(-1) if mirrored else output
            total = output if total is None else total + output
    assert total is not None
    return total / 8


def run_tiled(net: Network, lq: Tensor, tile: int, overlap: int) -> Tensor:
    """Run a network on squares of an image (B x 3 x H x W) and put the outputs together: memory does not grow with the
    image.

    Each square, of ``tile`` LR pixels, is given with ``overlap`` pixels of its surroundings, whose output is discarded.
    For a convolutional network the result is the whole image's, up to rounding, if ``overlap`` is at least the reach of
    its receptive field. For networks that look at the whole image (RCAN's pooling) or at windows in fixed places
    (SwinIR) it is an approximation. The result, B x 3 x sH x sW, is in the memory of ``lq``.
    """
    height, width = lq.shape[-2:]
    sr: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            above, before = max(top - overlap, 0), max(left - overlap, 0)
            output = net(lq[..., above : min(bottom + overlap, height), before : min(right + overlap, width)])
            if sr is None:
                scale = output.shape[-2] // (min(bottom + overlap, height) - above)
                sr = output.new_empty(*output.shape[:-2], height * scale, width * scale)
            own = output[
                ...,
                (top - above) * scale : (bottom - above) * scale,
                (left - before) * scale : (right - before) * scale,
            ]
            sr[..., top * scale : bottom * scale, left * scale : right * scale] = own
    assert sr is not None
    return sr


def needs_whole_windows(net: object) -> bool:
    """Whether a network has windows and does not pad images to whole ones itself. (StagedSwinIR says that it does.)"""
    window = getattr(net, 'window_size', None)
    return isinstance(window, int) and window > 1 and not getattr(net, 'takes_any_size', False)


def in_whole_windows(net: Network, lq: Tensor, window: int | None = None) -> Tensor:
    """Run a network with windows on an image of any size, B x C x H x W, as BasicSR's SwinIRModel does.

    The image is padded at its right and bottom edge to whole windows, of the side ``window`` or else
    ``net.window_size``, and the output is cropped.
    """
    height, width = lq.shape[-2:]
    window = window or net.window_size  # type: ignore[attr-defined]
    below, beside = -height % window, -width % window
    sr = net(padded(lq, below, beside))
    scale = sr.shape[-1] // (width + beside)
    return sr[..., : height * scale, : width * scale]


def device_of(net: nn.Module) -> torch.device:
    """Where a network is; the CPU for one without parameters."""
    return next((parameter.device for parameter in net.parameters()), torch.device('cpu'))


class RunBy(nn.Module):
    """A network that a function runs, as a module, so that its evaluation mode can be set."""

    def __init__(self, net: nn.Module, run: Network) -> None:
        super().__init__()
        self.net = net
        self.run = run
        self.training = net.training

    def forward(self, lq: Tensor) -> Tensor:
        """LR images -> SR images."""
        return self.run(lq)


def in_bf16(net: Network, lq: Tensor) -> Tensor:
    """Run a network with its body in bf16; a network without stages wholly in bf16. Its weights do not change.

    Head and tail stay in single precision, as their values need more than bf16's 8 binary digits: in bf16 they alone
    cost the shipped students 13 dB.
    """
    half = torch.autocast(lq.device.type, torch.bfloat16)
    staged: Any = net
    if not isinstance(net, nn.Module) or not is_staged(net):
        with half:
            return net(lq).float()
    feature, context = staged.head(lq)
    with half:
        feature = staged.body(feature, context, 0, staged.depth)
    return staged.tail(feature.float(), context)


def prepare_network(
    net: Network, ensemble: bool = False, tile: int = 0, overlap: int = 32, bf16: bool = False
) -> Network:
    """A network ready to run: in tiles if ``tile`` is not 0, and as a self-ensemble or in bf16 if asked for."""
    window = net.window_size if needs_whole_windows(net) else 0  # type: ignore[attr-defined]
    if bf16:
        net = partial(in_bf16, net)
    if window:
        net = partial(in_whole_windows, net, window=window)
    if tile:
        net = partial(run_tiled, net, tile=tile, overlap=overlap)
    return partial(self_ensemble, net) if ensemble else net
