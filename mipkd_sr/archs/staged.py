"""Head, body and tail: the form in which every network here can be taken apart.

The block prior mixer of MiPKD sends a feature map from the middle of one network through the rest of another. For that
a network is a sequence of three stages, and its ``forward`` is their composition::

    feature, context = net.head(lq)
    feature = net.body(feature, context, 0, net.depth)
    sr = net.tail(feature, context)

The body is ``depth`` units in a row (EDSR's residual blocks, RCAN's groups, SwinIR's RSTBs). Unit index ``i`` names the
place after the i-th unit: 0 is the head's output, ``depth`` the end of the body. Between units the feature map is
always B x C x H x W at the size of the LR image. ``context`` carries what later parts need besides the feature map (the
long skip connection, SwinIR's padding); a feature map that goes on through a network uses that network's own context.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._pytree import tree_map

Context = Any
"""What a network's tail and body need besides the feature map: tensors, numbers, text, sizes and None.

They may stand in tuples, named tuples, lists and dicts, nested as you like (what ``torch.utils._pytree`` knows). The
first dimension of every tensor is the batch, so that a context can be cut into its samples."""

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value (ITU-R BT.601)."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, torch.memory_format)
"""What may stand in a context besides tensors: all samples have it in common."""


class StagedNetwork(Protocol):
    """A super-resolution network as head, body and tail. A network of your own joins by having these four."""

    depth: int
    """Number of units in the body."""

    def head(self, lq: Tensor) -> tuple[Tensor, Context]:
        """LR images (B x 3 x H x W, values in [0, 1]) -> the first feature map (B x C x H x W) and the context."""

    def body(self, feature: Tensor, context: Context, start: int = 0, stop: int | None = None) -> Tensor:
        """Send ``feature`` (B x C x H x W) through the units ``start`` to ``stop`` (the end if None)."""

    def tail(self, feature: Tensor, context: Context) -> Tensor:
        """Turn the body's output (B x C x H x W) into SR images (B x 3 x sH x sW, values in about [0, 1])."""

    def __call__(self, lq: Tensor) -> Tensor:
        """Return ``tail(body(head(lq)))``."""


class Body(nn.Sequential):
    """A body whose units take and return the feature map alone: EDSR's and RCAN's.

    It keeps the parameter names of the ``nn.Sequential`` that it replaces.
    """

    def forward(self, feature: Tensor, context: Context = None, start: int = 0, stop: int | None = None) -> Tensor:
        """Send ``feature`` (B x C x H x W) through the units ``start`` to ``stop``; ``context`` is not needed."""
        for unit in list(self)[start:stop]:
            feature = unit(feature)
        return feature


class Composed:
    """A mix-in: a network's forward is the composition of its stages."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """B x C x H x W in [0, 1] -> B x C' x sH x sW."""
        feature, context = self.head(x)
        return self.tail(self.body(feature, context), context)


class _Times(nn.Module):
    """A weight as it is used, of the one that is trained: a fixed multiple."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor


class ConvolutionalStages(Composed, nn.Module):
    """Head, tail and forward of the networks that BasicSR builds alike: EDSR and RCAN.

    A mix-in: the class beside it has BasicSR's ``conv_first``, ``body``, ``conv_after_body``, ``upsample``,
    ``conv_last``, ``mean`` and ``img_range``, and calls ``use_stages`` when these are there.
    """

    conv_first: nn.Module
    body: Body
    conv_after_body: nn.Module
    upsample: nn.Module
    conv_last: nn.Module
    mean: Tensor
    img_range: float
    folded = False

    def use_stages(self, *channels: int) -> None:
        """Turn the body into one that can be entered and left anywhere, and the colour mean into a buffer.

        BasicSR copies the mean to the input's device and type inside ``forward``; a buffer moves with the network. It
        is not persistent: BasicSR's checkpoints have no such key.

        Args:
            channels: See ``mean_for``.
        """
        self.register_buffer('mean', mean_for(self.__dict__.pop('mean'), *channels), persistent=False)
        self.body = Body(*self.body)
        self.depth = len(self.body)

    def head(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """B x 3 x H x W in [0, 1] -> the first feature map, B x num_feat x H x W; the long skip is the same map."""
        feature = self.conv_first(lq if self.folded else (lq - self.mean) * self.img_range)
        return feature, feature

    def tail(self, feature: Tensor, context: Tensor) -> Tensor:
        """The body's output and the long skip (``context``), both B x num_feat x H x W -> SR, B x 3 x sH x sW."""
        feature = self.conv_after_body(feature) + context
        sr = self.conv_last(self.upsample(feature))
        return sr if self.folded else sr / self.img_range + self.mean

    @torch.no_grad()
    def fold_normalisation(self) -> None:
        """Put the colour mean and the image range into the first and the last convolution, in place.

        The border of the first is continued by the mean over the colours instead of by each colour's own; there the
        output differs a little, elsewhere not. What is trained of both keeps its size, as optimizers need it:
        the range is a fixed factor of it, until ``settle`` (``mipkd_sr.archs.weights``) makes it part of the weights.
        """
        first, last = self.conv_first, [m for m in self.modules() if isinstance(m, nn.Conv2d)][-1]
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        assert last.bias is not None
        mean, grey = self.mean.flatten(), float(self.mean.mean())
        first.bias -= (first.weight.sum((2, 3)) * mean).sum(1) * self.img_range
        side = first.kernel_size[0] // 2
        around = [side] * 4
        first.padding = (0, 0)
        first.register_forward_pre_hook(lambda module, images: (F.pad(images[0], around, value=grey),))
        last.bias += mean.repeat_interleave(len(last.bias) // len(mean)) * self.img_range
        if self.img_range != 1:
            register_parametrization(first, 'weight', _Times(self.img_range))
            register_parametrization(last, 'weight', _Times(1 / self.img_range))
            register_parametrization(last, 'bias', _Times(1 / self.img_range))
        self.folded = True


def padded(images: Tensor, below: int, beside: int) -> Tensor:
    """Images (B x C x H x W) with so many more rows and columns: reflected, or replicated where they are too small."""
    fits = below < images.shape[-2] and beside < images.shape[-1]
    return F.pad(images, (0, beside, 0, below), 'reflect' if fits else 'replicate')


def mean_for(mean: Tensor, *channels: int) -> Tensor:
    """A colour mean (1 x 3 x 1 x 1) for images in and out of ``channels``: its grey value unless both have three."""
    return mean if {*channels} == {3} else (mean.flatten() @ torch.tensor(GREY)).view(1, 1, 1, 1)


def part_of_context(context: Context, batch: int, rows: slice | Tensor) -> Context:
    """A context for some samples of the ``batch`` that it is for: a slice, or truth values.

    Raises:
        ValueError: If something in it cannot be cut into samples.
    """

    def part(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == batch:
            return leaf[rows]
        if isinstance(leaf, PLAIN):
            return leaf
        what = f'a tensor of shape {tuple(leaf.shape)}' if isinstance(leaf, Tensor) else f'a {type(leaf).__name__}'
        raise ValueError(
            f'the context of a batch of {batch} holds {what}; it must be made of tensors whose first dimension is the '
            'batch, numbers, text and None, in tuples, lists and dicts'
        )

    return tree_map(part, context)


def is_staged(net: nn.Module | None) -> TypeGuard[Any]:
    """Whether ``net`` has head, body, tail and depth."""
    return all(hasattr(net, name) for name in ('head', 'body', 'tail', 'depth'))


def walk_body(
    net: StagedNetwork, feature: Tensor, context: Context, indices: Iterable[int]
) -> Iterator[tuple[int, Tensor]]:
    """Send the head's output ``feature`` through the body, stopping after each of the units ``indices``.

    Yields:
        Each index, in ascending order, with the feature map (B x C x H x W) after that unit.
    """
    done = 0
    for index in sorted(set(indices)):
        feature = net.body(feature, context, done, index)
        done = index
        yield index, feature


def run_with_features(
    net: StagedNetwork, lq: Tensor, indices: Iterable[int]
) -> tuple[Tensor, dict[int, Tensor], Context]:
    """Run a whole network once on LR images (B x 3 x H x W, [0, 1]) and keep the feature maps after the units
    ``indices``.

    Returns:
        The SR images (B x 3 x sH x sW), the feature map (B x C x H x W) for each index, and the context.
    """
    feature, context = net.head(lq)
    features = dict(walk_body(net, feature, context, [*indices, net.depth]))
    return net.tail(features[net.depth], context), features, context
