"""Whether a network is what ``StagedNetwork`` promises: looked at on two small samples before it is relied on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mipkd_sr.archs.probing import (
    BATCH,
    WrongNetwork,
    check_feature,
    copy_of,
    described,
    kind,
    look_at_shapes,
    probe_of,
    run_head,
    run_on_images,
    walk,
)
from mipkd_sr.archs.staged import Context, is_staged, part_of_context

SIDES = (8, 16)
"""Sides of the samples, in pixels, that are tried one after the other, rounded up to whole windows."""
ALIKE, ROUGHLY_ALIKE = 1e-7, 1e-3
"""Differences, over the largest value. The first is float32's own rounding: the same arithmetic in the same order stays
below it. The second is more than rounding adds up to in a whole network."""
IN_DOUBLE = 1e-9
"""The same in float64, whatever the order."""
WITHOUT = 'logits KD and DUKD need no stages'


class _Different(WrongNetwork):
    """Two results that must be equal differ, by rounding or by a fault."""


def check_output(net: nn.Module, scale: int | None, lq_size: int) -> int:
    """Check that a network, with stages or without, turns LR images into one tensor that is ``scale`` times as large.

    Shapes alone are computed where that is possible, of images with a side of ``lq_size`` pixels. Any whole number is
    right if ``scale`` is None. Returns the factor.

    Raises:
        ValueError: If it does not.
    """

    def look(probe: nn.Module) -> int:
        lq, sr = run_on_images(probe, 'it', lambda lq: (lq, probe(lq)), [lq_size])
        return _check_size(probe, lq, sr, scale)

    return look_at_shapes(net, look)


def check_staged(net: nn.Module, scale: int | None = None, lq_size: int | None = None) -> None:
    """Check, by running a copy of it, that a network keeps what ``mipkd_sr.archs.StagedNetwork`` promises.

    * ``net(lq)`` equals ``tail(body(head(lq)))``, and is one tensor of ``scale`` times the size of ``lq``;
    * ``body(0, k)`` and then ``body(k, depth)`` equals ``body(0, depth)``, and the body ends with unit ``depth``;
    * feature maps are B x C x H x W, and every tensor of the context has the batch as its first dimension.

    The network itself is left as it was, and so are the random states.

    Args:
        net: The network.
        scale: Super-resolution factor; ``net.upscale``, or any, if None.
        lq_size: Side of LR images that the network takes, in pixels, for one that takes no small ones.

    Raises:
        ValueError: If it does not. The message says which of them is wrong, and what works without stages.
    """
    with probe_of(net) as probe, _full_precision():
        lq, sr = run_on_images(probe, 'it', lambda lq: (lq, probe(lq)), _sides(net, lq_size))
        _check_size(probe, lq, sr, scale or getattr(net, 'upscale', None))
        if not torch.isfinite(sr).all():
            raise WrongNetwork(
                f'{kind(net)} returned values that are not finite for an ordinary image; check its weights'
            )
        try:
            _check_depth(probe)
            _wake(probe)
            _examine_in_steps(probe, lq)
        except WrongNetwork as error:
            raise WrongNetwork(f'{error}; {WITHOUT}') from error


def _check_depth(net: Any) -> None:
    if not is_staged(net):
        raise WrongNetwork(f'{kind(net)} has no head, body, tail and depth')
    if isinstance(net.depth, bool) or not isinstance(net.depth, int) or net.depth < 1:
        raise WrongNetwork(f'depth of {kind(net)} is {net.depth!r}; it must be the number of units in its body')


def _sides(net: nn.Module, lq_size: int | None) -> list[int]:
    """Sides of LR images to try: small ones, of whole windows, and at last that of the training."""
    window = getattr(net, 'window_size', 1)
    multiple = window if isinstance(window, int) and window > 0 else 1
    small = [-(-side // multiple) * multiple for side in SIDES]
    return small if lq_size is None else [*small, lq_size]


@contextmanager
def _full_precision() -> Iterator[None]:
    """Without TF32, whose rounding is as large as a fault may be."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _wake(probe: nn.Module) -> None:
    """Give numbers to parameters that start as zeros, such as a residual branch's last: they hide what a unit does."""
    generator = torch.Generator().manual_seed(1)
    for parameter in probe.parameters():
        if parameter.is_floating_point() and not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def _check_size(net: nn.Module, lq: Tensor, sr: object, scale: int | None) -> int:
    if not isinstance(sr, Tensor):
        raise WrongNetwork(f'{kind(net)} returned a {kind(sr)}; its forward must return SR images, one tensor')
    height, width = lq.shape[-2:]
    factor = scale or sr.shape[-1] // width
    if sr.ndim == 4 and len(sr) == len(lq) and sr.shape[-2:] == (factor * height, factor * width):
        return factor
    times = f'{scale} times' if scale else 'a whole number of times'
    raise WrongNetwork(
        f'{kind(net)} turns LR images of {_size(lq)} into {_size(sr)}; its output must have {times} their height and '
        'width'
    )


def _size(images: Tensor) -> str:
    return ' x '.join(map(str, images.shape))


def _examine_in_steps(probe: nn.Module, lq: Tensor) -> None:
    """Tell a fault from rounding: in float64 only a fault is seen. Without float64 the difference must be small."""
    try:
        _examine(probe, lq, ALIKE)
        return
    except _Different:
        pass
    try:
        doubled = copy_of(probe).double()
        doubled(lq.double())
    except Exception:
        _examine(probe, lq, ROUGHLY_ALIKE)
    else:
        _examine(doubled, lq.double(), IN_DOUBLE)


def _examine(net: Any, lq: Tensor, tolerance: float) -> None:
    """Compare what the stages compute with each other, and with the network's forward."""
    feature, context = run_head(net, lq)
    _check_context(net, lq, feature, context)
    features, copies = [feature], [feature.clone()]
    for _, found in walk(net, feature, context, range(1, net.depth + 1)):
        features.append(found)
        copies.append(found.clone())
    for unit, (found, before) in enumerate(zip(features, copies, strict=True)):
        if not torch.equal(found, before):
            raise WrongNetwork(
                f'the body of {kind(net)} writes into the feature map that it is given, after unit {unit}; let it '
                'make a new one (no += and no inplace=True on its input)'
            )
    _check_units(net, features, context, tolerance)
    _check_forward(net, lq, features[-1], context, tolerance)


def _check_context(net: Any, lq: Tensor, feature: Tensor, context: Context) -> None:
    """What the head makes of one sample is that sample's part of what it makes of two."""
    alone_feature, alone_context = run_head(net, lq[:1])
    try:
        part = part_of_context(context, BATCH, slice(1))
        part_of_context(alone_context, 1, slice(1))  # two may hide a tensor that has two values for another reason
    except ValueError as error:
        raise WrongNetwork(f'the head of {kind(net)}: {error}') from None
    both = (feature[:1], part), (alone_feature, alone_context)
    ours, theirs = ([leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)] for found in both)
    if len(ours) != len(theirs) or not all(map(partial(_alike, tolerance=ROUGHLY_ALIKE), ours, theirs)):
        raise WrongNetwork(
            f'the head of {kind(net)} makes something else of an image alone than of the same image in a batch; the '
            'first dimension of the feature map, and of every tensor in the context, must be the batch'
        )


def _check_units(net: Any, features: Sequence[Tensor], context: Context, tolerance: float) -> None:
    """Units run one by one are those run together, and each of them does something."""
    depth, middle = net.depth, (net.depth + 1) // 2
    first, second = net.body(features[0], context, 0, middle), net.body(features[middle], context, middle, depth)
    for start, stop, found in ((0, middle, first), (middle, depth, second)):
        check_feature(net, 'body', found, BATCH)
        if not _alike(found, features[stop], tolerance):
            raise _Different(
                f'the body of {kind(net)} does not run the units start to stop alone: from {start} to {stop} it '
                f'gives something else than unit by unit (depth is {depth})'
            )
    idle = [unit for unit in range(depth) if torch.equal(features[unit], features[unit + 1])]
    if depth - 1 in idle:
        end = next(unit for unit in range(depth, -1, -1) if unit - 1 not in idle)
        raise WrongNetwork(
            f'depth of {kind(net)} is {depth}, but its body does nothing after unit {end}; depth must be the number of '
            'its units'
        )


def _check_forward(net: Any, lq: Tensor, feature: Tensor, context: Context, tolerance: float) -> None:
    """The three stages are the network."""
    composed = _run_tail(net, feature, context)
    _check_size(net, lq, composed, None)
    sr = net(lq)
    if _alike(composed, sr, tolerance):
        return
    start, context = run_head(net, lq)
    if _alike(_run_tail(net, net.body(start, context), context), sr, tolerance):
        raise _Different(f'depth of {kind(net)} is {net.depth}, but its body has more units; depth is their number')
    raise _Different(
        f'the forward of {kind(net)} gives something else than tail(body(head(lq))) with its depth of {net.depth}; '
        'let forward be their composition'
    )


def _run_tail(net: Any, feature: Tensor, context: Context) -> Any:
    try:
        return net.tail(feature, context)
    except Exception as error:
        raise WrongNetwork(f'the tail of {kind(net)} fails ({described(error)})') from error


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    if torch.equal(a, b):
        return True
    largest = max(a.abs().max().item(), b.abs().max().item())
    return bool((a - b).abs().max().item() <= tolerance * largest)
