"""Running a network of anybody's on small samples, to see what it does, and leaving it as it was."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mipkd_sr.archs.staged import Context, walk_body
from mipkd_sr.runtime.errors import sentence
from mipkd_sr.runtime.seeding import preserved_random_state

Found = TypeVar('Found')

BATCH = 2
HEAD = 'it must return a pair: the first feature map, B x C x H x W, and the context (None if there is none)'


class WrongNetwork(ValueError):
    """A network is not what it must be. The message says in what, and names it. All that looks at networks here may
    raise it.
    """


def kind(value: object) -> str:
    """What a network, or what it returned, is called in messages: its class."""
    return type(value).__name__


def described(error: Exception) -> str:
    """An exception that somebody's code raised, in words."""
    return f'{kind(error)}: {sentence(error).rstrip(".")}'


def copy_of(net: nn.Module) -> nn.Module:
    """A copy of ``net``."""
    try:
        return deepcopy(net)
    except Exception as error:  # a user's network raises what it likes, here and below
        raise WrongNetwork(f'{kind(net)} cannot be copied ({described(error)})') from error


@contextmanager
def probe_of(net: nn.Module) -> Iterator[nn.Module]:
    """A copy of ``net`` in evaluation mode, to run without gradients. Random states are as they were afterwards."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        with preserved_random_state(), torch.no_grad():
            yield copy_of(net).eval()
    finally:
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


def look_at_shapes(net: nn.Module, look: Callable[[Any], Found]) -> Found:
    """What ``look`` finds out about shapes: on torch's meta device, which computes nothing else, if that can be.

    A network with an operation that does not work there is run for real.
    """
    with probe_of(net) as probe:
        try:
            return look(copy_of(probe).to('meta'))
        except Exception:
            return look(probe)


def run_on_images(net: nn.Module, part: str, run: Callable[[Tensor], Found], sides: Iterable[int]) -> Found:
    """Give images to ``run``, of the sizes and the channels that ``net`` may take, until it takes them.

    They are 2 x C x side x side, values in [0, 1]; ``part`` is what of the network is run, for the message.

    Raises:
        WrongNetwork: If it takes none. The message has the first error.
    """
    first = None
    for side in sides:
        for channels in _input_channels(net):
            lq = _images(net, channels, side)
            try:
                return run(lq)
            except WrongNetwork:
                raise
            except Exception as error:
                first = first or WrongNetwork(
                    f'{kind(net)} fails: {part} does not take LR images of {" x ".join(map(str, lq.shape))} '
                    f'({described(error)})'
                )
    raise first or AssertionError('no side was given')


def first_convolution(net: nn.Module) -> nn.Conv2d | None:
    """The first convolution of a network, which takes its images; None if there is none."""
    return next((layer for layer in net.modules() if isinstance(layer, nn.Conv2d)), None)


def _input_channels(net: nn.Module) -> list[int]:
    """Channels that the images of a network may have, the likeliest first: 3, and what its convolutions take."""
    taken = {layer.in_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)}
    return [3, *sorted(taken - {3})]


def _images(net: nn.Module, channels: int, side: int) -> Tensor:
    """Random images, of the type and on the device of the network's parameters."""
    parameter = next(net.parameters(), torch.empty(0))
    images = torch.rand(BATCH, channels, side, side, generator=torch.Generator().manual_seed(0))
    return images.to(parameter.device, parameter.dtype)


def run_head(net: Any, lq: Tensor) -> tuple[Tensor, Context]:
    """What the head of a network makes of LR images (B x C x H x W): a feature map and a context."""
    found = net.head(lq)
    if not isinstance(found, tuple) or len(found) != 2:
        what = f'a tuple of {len(found)}' if isinstance(found, tuple) else f'a {kind(found)}'
        raise WrongNetwork(f'the head of {kind(net)} returned {what}; {HEAD}')
    check_feature(net, 'head', found[0], len(lq), HEAD)
    return found


def check_feature(net: object, stage: str, feature: object, batch: int, advice: str = '') -> None:
    """Check that what a stage returned for ``batch`` images is a feature map."""
    if isinstance(feature, Tensor) and feature.ndim == 4 and len(feature) == batch:
        return
    what = f'of shape {tuple(feature.shape)}' if isinstance(feature, Tensor) else f'that is a {kind(feature)}'
    advice = advice or 'between units it must be B x C x H x W'
    raise WrongNetwork(f'the {stage} of {kind(net)} returned a feature map {what} for {batch} images; {advice}')


def feature_shapes(net: Any, indices: Iterable[int], size: int) -> dict[int, tuple[int, ...]]:
    """Shapes (C, H, W) of the feature maps after the units ``indices`` for an LR image of ``size`` x ``size`` pixels.

    A copy of the network is run, in evaluation mode, so this works for any network, of any number of input channels,
    without its saying how wide it is; the network itself is left as it was and no random number is drawn.

    Raises:
        WrongNetwork: If it cannot be run, or gives no feature maps.
    """
    wanted = list(indices)
    return look_at_shapes(net, lambda probe: _shapes(probe, wanted, [size]))


def _shapes(net: Any, indices: list[int], sides: Sequence[int]) -> dict[int, tuple[int, ...]]:
    feature, context = run_on_images(net, 'its head', lambda lq: run_head(net, lq), sides)
    shapes = {}
    for index, found in walk(net, feature, context, indices):
        shapes[index] = tuple(found.shape[1:])
    return shapes


def walk(net: Any, feature: Tensor, context: Context, indices: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
    """``walk_body``, with what somebody's body raises or returns put into words."""
    done = 0
    try:
        for index, found in walk_body(net, feature, context, indices):
            check_feature(net, 'body', found, len(feature))
            done = index
            yield index, found
    except WrongNetwork:
        raise
    except Exception as error:
        raise WrongNetwork(
            f'the body of {kind(net)}, of depth {net.depth}, fails after unit {done} ({described(error)})'
        ) from error
