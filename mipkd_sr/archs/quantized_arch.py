"""A network whose arithmetic is of 8 bits: simulated, so that it can be trained, and told to the runtimes that do it.

Quantisation as in https://arxiv.org/abs/1712.05877: weights have a step for each output channel, and no zero; what an
operator gives has one step and one zero, for a range found from images, which training moves (learned step sizes,
https://arxiv.org/abs/1902.08153, and zeros). The LR and the SR image have steps of 1 / 255, a photograph's own, so that
they lose nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers torch.ops.quantized_decomposed)
from torch.ao.quantization.observer import HistogramObserver
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mipkd_sr.archs.weights import fuse, load_weights, read_weights

RELU = {F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_, F.relu6, torch.clamp, Tensor.clamp}
"""Activations that runtimes compute inside the operator before: between the two nothing is rounded."""
TORCH_SAME_VALUES = {F.pixel_shuffle, torch.pixel_shuffle, F.pad, torch.reshape, Tensor.reshape, Tensor.view}
TORCH_SAME_VALUES |= {Tensor.permute, Tensor.contiguous, torch.cat}
"""PyTorch's operators that give the values of one tensor, and so have its step and zero."""
CONVOLUTIONS = {F.conv2d: 0, torch.conv2d: 0, F.conv_transpose2d: 1, F.linear: 0}
"""Operators with a weight, and the dimension of its output channels."""
TIMES = {Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul}
LOG_STEP, ZERO = 3, 180
"""What a unit of ``ranges`` is: an optimizer for weights of about 0.1 moves steps by parts, and zeros by levels."""
LOOKING = {'__get__', 'size', 'dim', 'numel', 'detach', '__len__', '__getitem__'}
"""What looks at a tensor, or takes a part of it, and computes nothing."""


class _Rounding(TorchFunctionMode):
    """Rounds what operators take. Each operator's output is a point, named by the stage and its number in it.

    An output is rounded as another operator takes it, once, however many do; so an activation comes before.
    """

    def __init__(self, owner: 'Quantized', stage: str) -> None:
        super().__init__()
        self.owner, self.stage, self.count = owner, stage, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in TIMES and not isinstance(args[1], Tensor):
            if args[1] == 1:  # EDSR's residual scale
                return args[0]
            if isinstance(args[0], nn.Parameter):  # a folded weight: see fold_normalisation
                return func(*args)
        if getattr(func, '__name__', '') in LOOKING:
            return func(*args, **kwargs)
        if func in RELU and hasattr(args[0], 'point'):
            point, rounded = args[0].point, args
        else:
            rounded, kwargs = tree_map_only(Tensor, self.rounded, (args, kwargs))
            points = {getattr(value, 'point', None) for value in tree_leaves(args) if isinstance(value, Tensor)}
            same = func in TORCH_SAME_VALUES or kwargs.get('mode') == 'nearest'  # as F.interpolate has it
            point = points.pop() if same and len(points) == 1 else None
        if func in CONVOLUTIONS:
            rounded = (rounded[0], self.owner.rounded_weight(rounded[1], CONVOLUTIONS[func]), *rounded[2:])
        out = func(*rounded, **kwargs)
        if isinstance(out, Tensor) and out.is_floating_point():
            if any(out is value for value in rounded):  # computed in place, or as it was
                out = out.view_as(out)
            if point is None:
                point, self.count = f'{self.stage}:{self.count}', self.count + 1
            out.point = point  # type: ignore[attr-defined]
        return out

    def rounded(self, value: Tensor) -> Tensor:
        """A tensor, rounded if it is what an operator has given."""
        if not hasattr(value, 'point'):
            return value
        if not hasattr(value, 'as_rounded'):
            found: Any = self.owner.rounded(value, value.point)
            value.as_rounded = found.as_rounded = found  # type: ignore[attr-defined]
            found.point = value.point
        return value.as_rounded  # type: ignore[attr-defined]


@ARCH_REGISTRY.register()
class Quantized(nn.Module):
    """A network of 8 bits: head, body and tail as the network's own. Convolutions that train as several are one.

    It begins with a checkpoint that ``mipkd quantize`` writes, which has ranges. Training moves them by ``ranges``.

    Args:
        network: The network; in an option file its options.
    """

    steps: Tensor
    zeros: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        net = network
        self.plain = [net]  # in a list: no module of this one
        self.net = fuse(deepcopy(net), fold=True)
        self.depth, self.upscale = getattr(net, 'depth', 0), getattr(net, 'upscale', None)
        self.points: dict[str, int] = {}
        self.observers: Sequence[Callable[[Tensor], Any]] | None = None
        self.forms: Any = None
        with torch.no_grad():
            self.finding = True
            self.output = -1
            self.eval()(torch.zeros(1, 3, 48, 48))
            self.finding = False
        self.train()
        self.register_buffer('steps', torch.full((len(self.points),), torch.nan))
        self.register_buffer('zeros', torch.zeros(len(self.points), dtype=torch.int32))
        self.ranges = nn.Parameter(torch.zeros(2, len(self.points)))

    def load_checkpoint(self, file: Any, param_key: str) -> None:
        """Read a checkpoint of this, or of the network as it was before, whose ranges are then to be found."""
        weights = read_weights(file, param_key)
        if 'steps' not in weights:
            load_weights(self.plain[0], file, param_key)
            self.net = fuse(deepcopy(self.plain[0]), fold=True)
            return
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f'{file} holds another network of 8 bits ({" ".join(str(error).split())[:200]})') from None

    @torch.no_grad()
    def calibrate(self, images: Iterable[Tensor]) -> None:
        """Find the ranges: those that lose least of what the images (1 x 3 x H x W in [0, 1]) make of them."""
        observers = [HistogramObserver() for _ in self.points]
        self.observe(images, observers)
        for index, observer in enumerate(observers):
            step, zero = torch.tensor([1 / 255]), torch.tensor([0])
            if not self.is_image(index):
                step, zero = observer.calculate_qparams()
            self.steps[index], self.zeros[index] = step[0], zero[0]
        self.ranges.zero_()

    @torch.no_grad()
    def observe(self, images: Iterable[Tensor], observers: Sequence[Callable[[Tensor], Any]]) -> None:
        """Call each point's observer with what single precision gives there, image by image (1 x 3 x H x W)."""
        self.observers = observers
        self.eval()
        for image in images:
            self(image)
        self.observers = None

    def is_image(self, point: int) -> bool:
        """Whether a point is the LR or the SR image."""
        return point in (self.points['lq'], self.output)

    def _moved(self, points: slice) -> tuple[Tensor, Tensor]:
        """Points' steps and zeros as training has left them, with gradients; the zeros are not whole."""
        steps = self.steps[points] * (LOG_STEP * self.ranges[0, points]).exp()
        return steps, self.zeros[points] + ZERO * self.ranges[1, points]

    @torch.no_grad()
    def levels(self, points: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Points' steps, and their zeros, whole numbers in 0..255, as training has left them."""
        steps, zeros = self._moved(points)
        return steps, zeros.round().clamp(0, 255).int()

    @contextmanager
    def told_to_runtimes(self) -> Iterator[None]:
        """A context in which rounding is by operators that exporters know."""
        self.forms = [column.tolist() for column in self.levels()]
        try:
            yield
        finally:
            self.forms = None

    def rounded(self, value: Tensor, point: str) -> Tensor:
        """What an operator gives, to 8 bits."""
        if self.finding:
            self.points.setdefault(point, len(self.points))
            return value
        index = self.points[point]
        if self.observers:
            self.observers[index](value.detach())
            return value
        if self.forms is not None:
            step, zero, ops = float(self.forms[0][index]), int(self.forms[1][index]), torch.ops.quantized_decomposed
            levels = ops.quantize_per_tensor(value, step, zero, 0, 255, torch.uint8)
            return ops.dequantize_per_tensor(levels, step, zero, 0, 255, torch.uint8)
        own = slice(index, index + 1)
        if self.training and not self.is_image(index):
            return torch._fake_quantize_learnable_per_tensor_affine(value, *self._moved(own), 0, 255)
        steps, zeros = self.levels(own)
        return torch.fake_quantize_per_tensor_affine(value, steps[0], zeros[0], 0, 255)

    def rounded_weight(self, weight: Tensor, channels: int) -> Tensor:
        """A weight, to 8 bits."""
        if self.finding or self.observers:
            return weight
        others = [number for number in range(weight.ndim) if number != channels]
        step = weight.detach().abs().amax(others).clamp(min=1e-9) / 127
        zero = torch.zeros(len(step), dtype=torch.int32, device=weight.device)
        if self.forms is None:
            return torch.fake_quantize_per_channel_affine(weight, step, zero, channels, -127, 127)
        ops = torch.ops.quantized_decomposed
        levels = ops.quantize_per_channel(weight, step, zero, channels, -127, 127, torch.int8)
        return ops.dequantize_per_channel(levels, step, zero, channels, -127, 127, torch.int8)

    def _stage(self, name: str, stage: Any, *arguments: Any) -> Any:
        with _Rounding(self, name) as mode:
            found = stage(*arguments)
        return tree_map_only(Tensor, mode.rounded, found)

    def head(self, lq: Tensor) -> tuple[Tensor, Any]:
        """See ``mipkd_sr.archs.staged``."""
        return self._stage('head', self.net.head, self._image(lq))

    def _image(self, lq: Tensor) -> Tensor:
        image = lq.view_as(lq)
        image.point = 'lq'  # type: ignore[attr-defined]
        return image

    def body(self, feature: Tensor, context: Any = None, start: int = 0, stop: int | None = None) -> Tensor:
        """See ``mipkd_sr.archs.staged``."""
        for unit in range(start, self.depth if stop is None else stop):
            feature = self._stage(f'body{unit}', self.net.body, feature, context, unit, unit + 1)
        return feature

    def tail(self, feature: Tensor, context: Any) -> Tensor:
        """See ``mipkd_sr.archs.staged``."""
        return self._last(self._stage('tail', self.net.tail, feature, context))

    def _last(self, sr: Tensor) -> Tensor:
        if self.finding:
            self.output = len(self.points) - 1
        return sr

    def forward(self, lq: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x sH x sW."""
        if self.depth and hasattr(self.net, 'head'):
            feature, context = self.head(lq)
            return self.tail(self.body(feature, context), context)
        return self._last(self._stage('whole', self.net, self._image(lq)))
