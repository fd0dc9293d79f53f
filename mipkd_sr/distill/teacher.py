"""The teacher, frozen; and several of them."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mipkd_sr.archs.staged import Context, run_with_features
from mipkd_sr.distill.objective import NetworkPass
from mipkd_sr.runtime.compiling import region


class FrozenTeacher:
    """A teacher network that nothing trains.

    It is deliberately not an ``nn.Module``. A module that holds it does not own its parameters. So they reach no
    optimizer, moving average, checkpoint or DistributedDataParallel, and no ``train()`` turns its drop-path on.

    Args:
        net: The network. It is put into evaluation mode and its parameters need no gradient from here on.
        precision: Type of its arithmetic when it runs on images; the surrounding autocast's if None. Its outputs have
            the images' type. It does not affect the block prior mixer's paths, which enter the teacher in its middle.
    """

    def __init__(self, net: nn.Module, precision: torch.dtype | None = None) -> None:
        self.net = net.eval().requires_grad_(False)
        self.precision = precision

    @torch.no_grad()
    def __call__(self, lq: Tensor, indices: Iterable[int] = ()) -> NetworkPass:
        """Run the teacher on LR images (B x 3 x H x W, [0, 1]) and keep its features after the units ``indices``."""
        if self.precision is None:
            return run_network(self.net, lq, indices)
        with torch.autocast(lq.device.type, self.precision, enabled=self.precision is not torch.float32):
            return run_network(self.net, lq, indices, lq.dtype)


def run_network(
    net: nn.Module, lq: Tensor, indices: Iterable[int] = (), dtype: torch.dtype | None = None
) -> NetworkPass:
    """Run ``net`` on LR images (B x 3 x H x W, [0, 1]); with features it must have head, body and tail.

    With ``dtype`` every map of floating point is given in that type.
    """
    return NetworkPass(net, *_run(net, lq, tuple(indices), dtype))  # type: ignore[arg-type]


@region
def _run(
    net: nn.Module, lq: Tensor, indices: tuple[int, ...], dtype: torch.dtype | None
) -> tuple[Tensor, Mapping[int, Tensor], Context]:
    # a network without stages has its output alone
    found = run_with_features(net, lq, indices) if indices else (net(lq), {}, None)  # type: ignore[arg-type]
    return found if dtype is None else tree_map_only(torch.Tensor, partial(_cast, dtype), found)


def _cast(dtype: torch.dtype, value: Tensor) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


class TeacherMixture(nn.Module):
    """Several teachers as one network, whose output is a weighted sum of theirs; it has no head, body and tail."""

    def __init__(self, nets: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.nets = nn.ModuleDict({name: nets[name] for name in weights})
        self.window_size = max(getattr(net, 'window_size', 0) for net in self.nets.values())

    def forward(self, lq: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x sH x sW."""
        first, *others = [self.weights[name] * net(lq) for name, net in self.nets.items()]
        return sum(others, first)


def mixed_passes(
    weights: Mapping[str, float], passes: Mapping[str, Mapping[str, NetworkPass]]
) -> dict[str, NetworkPass]:
    """What an objective gets from its teachers, by view: the passes of the only one, or the weighted sum of several
    outputs.

    Views are those that all of them have. A weighted sum has no network, features or context.
    """
    names = [name for name in weights if name in passes]
    if not names or len(names) < len(weights):
        return {}
    if len(names) == 1:
        return dict(passes[names[0]])
    common = [view for view in passes[names[0]] if all(view in passes[name] for name in names)]
    mixed = {}
    for view in common:
        first, *others = [weights[name] * passes[name][view].sr for name in names]
        mixed[view] = NetworkPass(cast(Any, None), sum(others, first))
    return mixed
