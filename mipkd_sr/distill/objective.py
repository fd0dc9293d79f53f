"""What an objective is, and what a training step tells it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from mipkd_sr.archs.staged import Context, StagedNetwork, part_of_context
from mipkd_sr.data.degradations import USMSharp
from mipkd_sr.distill.weight_schedule import ALWAYS, Schedule
from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.errors import RunError
from mipkd_sr.runtime.ranks import BatchDraws


class View(NamedTuple):
    """One input that a step sends through the networks; for most objectives only ``lq``, the same for both.

    ``student`` and ``teacher`` are B x 3 x H x W, values in [0, 1]. The teacher is left out where ``teacher`` is None.
    ``restore`` is applied to the student's output: it undoes what was done to the student's input.
    """

    student: Tensor
    teacher: Tensor | None
    restore: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class NetworkPass:
    """What one network computed for one view.

    Attributes:
        net: The network.
        sr: Its output, B x 3 x sH x sW, values in about [0, 1].
        features: Its feature maps, B x C x H x W, by unit index.
        context: Its context, see ``mipkd_sr.archs.staged``.
    """

    net: StagedNetwork
    sr: Tensor
    features: Mapping[int, Tensor] = field(default_factory=dict)
    context: Context = None

    def of_samples(self, rows: slice | Tensor) -> 'NetworkPass':
        """This pass for some samples of its batch: a slice, or truth values."""
        features = {index: feature[rows] for index, feature in self.features.items()}
        try:
            context = part_of_context(self.context, len(self.sr), rows)
        except ValueError as error:
            raise RunError(f'{type(self.net).__name__}: {error}.') from None
        return NetworkPass(self.net, self.sr[rows], features, context)

    def run_rest(self, feature: Tensor, index: int) -> Tensor:
        """Send ``feature`` (B x C x H x W), as the output of unit ``index``, through the rest of this network.

        It may be another network's map. BatchNorm's running statistics do not change.

        Returns:
            SR images, B x 3 x sH x sW.
        """
        with statistics_kept(self.net):
            return run_units(self.net, feature, self.context, index, self.net.depth, to_end=True)


@region
def run_units(
    net: StagedNetwork, feature: Tensor, context: Context, start: int, stop: int, parts: int = 0, to_end: bool = False
) -> Tensor:
    """Send ``feature`` (B x C x H x W) through the units ``start`` to ``stop`` of ``net``, and its tail if ``to_end``.

    With ``parts`` these units keep no activations. The backward pass computes them again, in as many parts: less memory
    for a third more time.
    """
    parts = min(parts, stop - start)
    if not parts:
        feature = net.body(feature, context, start, stop)
    cuts = [start + (stop - start) * part // parts for part in range(parts + 1)] if parts else []
    for first, last in itertools.pairwise(cuts):
        feature = checkpoint(net.body, feature, context, first, last, use_reentrant=False, preserve_rng_state=False)
    return net.tail(feature, context) if to_end else feature


@contextmanager
def statistics_kept(net: Any) -> Iterator[None]:
    """A context for sending other networks' feature maps through ``net``.

    Its norms (BatchNorm), where they are in training mode, normalise them by the batch's own statistics, and leave out
    of their running ones what ``net`` will not see in use.
    """
    norms = [norm for norm in net.modules() if isinstance(norm, _NormBase) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = not norm.training
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@dataclass(frozen=True)
class StepState:
    """What a training step has computed when the objectives are asked.

    Attributes:
        lq: LR images, B x 3 x H x W, values in [0, 1].
        gt: HR images, B x 3 x sH x sW, values in [0, 1].
        student: The student's passes, by view: ``lq``, and the objective's own.
        teacher: The teacher's passes, by view; without gradients.
        progress: The part of the training that is done, in (0, 1].
        branch_rng: Generator (on the CPU) for choices that decide which branch runs: it is the same on every rank, and
            depends on seed, iteration and objective alone.
        draws: Random numbers for samples: a sample's are the same on however many ranks the batch lies.
        logs: Values to log beside the losses, by name; the objective adds to it. Scalars, without gradient.
    """

    lq: Tensor
    gt: Tensor
    student: Mapping[str, NetworkPass]
    teacher: Mapping[str, NetworkPass]
    progress: float
    branch_rng: torch.Generator
    draws: BatchDraws
    logs: dict[str, Tensor | float]


class Objective(nn.Module):
    """A term, or several, of the training loss.

    A subclass is registered with BasicSR's LOSS_REGISTRY and named under a key ending in ``_opt`` in the option file.
    Parameters that it creates (encoders, projections) are trained with the student and kept in the training state,
    never in the student's file.
    """

    needs_teacher = True
    """Whether it uses the teacher's output for ``lq``."""
    needs_gt = True
    """Whether it uses HR images: of a batch in which some samples have none it is then given the others alone, and what
    it returns is weighted by their share."""
    has_gt: Tensor | None = None
    """Where it needs none but its views can use them: which samples of the step's batch have one, B truth values; None
    if all have. Set before its views are asked for."""
    needs_teacher_first = False
    """Whether its views depend on that output. If so, the teacher first runs on ``lq``, in a call of its own."""
    compares_outputs = False
    """Whether it compares the student's output for ``lq`` with the teacher's, so that ``gate`` is defined for it."""

    is_pure = False
    """Whether its losses depend on images, outputs and features alone. Such an objective draws nothing, logs nothing,
    uses no network and does not look at the progress. These objectives are compiled together, see ``train:compile``."""

    schedule: Schedule = ALWAYS
    """A factor on its losses; where it is 0 the objective is not computed. From the option ``schedule``."""
    gate = 0
    """Side, in HR pixels, of the patches in which it sees the teacher's output only where that is better than the
    student's, see ``mipkd_sr.distill.gate``; 0 for everywhere. From the option ``gate``."""
    balance = 0.0
    """Norm of its losses' gradient on the student, as a multiple of that of all terms without ``balance``; 0 to leave
    its weight alone. See ``balance_by``; from the option ``balance``."""
    balance_norms: Tensor
    listens_to: Mapping[str, float] = MappingProxyType({})
    """Weights, of sum 1, of the teachers whose outputs it learns from, by their names; all alike if empty. From the
    option ``teacher``."""
    progress = 0.0
    """The part of the training that is done, in (0, 1], when a step asks for its views."""

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Meet the two networks, once, before training: create what depends on their widths, check that they fit.

        Args:
            student: The student.
            teacher: The teacher, or None.
            lq_size: Side of the LR training patches, in pixels.
            scale: Super-resolution factor.

        Raises:
            ValueError: If the objective is not defined for them.
        """

    def balance_by(self, ratio: float) -> None:
        """Weigh its losses so that their gradient is ``ratio`` times the others', see ``mipkd_sr.distill.gradients``.

        The moving averages of both norms are part of its state.
        """
        self.balance = ratio
        self.register_buffer('balance_norms', torch.zeros(2, dtype=torch.float32))

    def least_batch(self) -> int:
        """Samples that a batch must have, those of all ranks together, for the objective to be defined."""
        return 1

    def student_indices(self) -> list[int]:
        """Unit indices at which the student's features of view ``lq`` are wanted."""
        return []

    def teacher_indices(self) -> list[int]:
        """Unit indices at which the teacher's features of view ``lq`` are wanted."""
        return []

    def views(self, lq: Tensor, gt: Tensor, teacher_sr: Tensor | None, draws: BatchDraws) -> dict[str, View]:
        """Inputs that it needs besides ``lq``, by name. Another objective's views may have the same names.

        Args:
            lq: LR images, B x 3 x H x W, values in [0, 1].
            gt: HR images, B x 3 x sH x sW, values in [0, 1].
            teacher_sr: The teacher's output for ``lq``, as ``gt``, if an objective needs it first, else None.
            draws: Random numbers for samples, as in ``StepState``.
        """
        return {}

    def after_step(self, student: nn.Module, iteration: int) -> None:
        """Act after the optimizer's step:

        update what gradients do not train (a history, a codebook). It is called once an iteration, alike on every rank,
        however many parts the step had. It is also called after a skipped step; the student is then unchanged. The
        objective's own networks and buffers are saved in the training state. They must need no gradient and stay in
        evaluation mode by themselves.

        Args:
            student: The student as it is used: its moving average where there is one.
            iteration: Number of the step, from 1.
        """

    def forward(self, state: StepState) -> dict[str, Tensor]:
        """The weighted losses, scalars, by the name under which they are logged (``l_...``); they are summed.

        Objectives may use the same names: every loss counts; see ``mipkd_sr.distill.log_names`` for how it is logged.
        """
        raise NotImplementedError


class ImageObjective(Objective):
    """A loss of BasicSR's between the student's output and the HR image: ``L_rec = D(S, HR)``.

    Args:
        name: Name of the loss in the logs.
        criterion: Takes SR and HR images; returns a loss, or BasicSR's pair of perceptual and style loss.
        sharpen: Whether the HR images are sharpened for it (unsharp masking).
    """

    needs_teacher = False
    is_pure = True

    def __init__(self, name: str, criterion: nn.Module, sharpen: bool = False) -> None:
        super().__init__()
        self.name = name
        self.criterion = criterion
        self.usm = USMSharp() if sharpen else None

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        gt = state.gt if self.usm is None else self.usm(state.gt)
        loss = self.criterion(state.student['lq'].sr, gt)
        if isinstance(loss, tuple):
            losses = {'l_percep': loss[0], 'l_style': loss[1]}
            return {name: value for name, value in losses.items() if value is not None}
        return {self.name: loss}
