"""Skips steps whose loss or gradient is not finite; too many in a row end the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mipkd_sr.runtime.errors import RunError
from mipkd_sr.runtime.ranks import rank_and_size


@dataclass(frozen=True)
class _Step:
    iteration: int
    names: Sequence[str]
    losses: Mapping[str, Tensor]
    skipped: Tensor
    lq_sum: Tensor
    teacher_sums: Sequence[Mapping[str, Tensor]]


class Statistics:
    """The statistics that the forward of a network changes (BatchNorm's), so that a skipped step leaves them alone."""

    def __init__(self, net: nn.Module) -> None:
        self._norms = [module for module in net.modules() if isinstance(module, _NormBase)]
        self._before: list[Tensor] = []

    def note(self) -> None:
        """Note them before a step."""
        self._before = [buffer.clone() for buffer in self._buffers()]

    def put_back_if(self, skipped: Tensor) -> None:
        """Restore the noted values if ``skipped``, a scalar, is true; the CPU does not wait for the device."""
        for buffer, before in zip(self._buffers(), self._before, strict=True):
            buffer.copy_(torch.where(skipped, before, buffer))

    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in norm.buffers(recurse=False)]


def step_unless_bad(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float) -> Tensor:
    """Take an optimizer's step unless the gradient is not finite; returns whether it was skipped, a scalar.

    The gradients have the scaler's scale; ``clip`` is their greatest norm, 0 for none.
    """
    scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    skipped = ~torch.isfinite(norm)
    if clip > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    elif getattr(optimizer, '_step_supports_amp_scaling', False):  # torch's fused optimizers skip on the device
        optimizer.found_inf = skipped.to(torch.float32)  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
    elif not skipped:
        optimizer.step()
    return skipped


@dataclass
class SkippedSteps:
    """Counts skipped steps without waiting for the device in every step; more than ``limit`` in a row end the run.

    ``taken`` are the steps that were not skipped, as far as has been looked. The teachers' files are for messages.
    """

    limit: int
    teacher_files: Mapping[str, str]
    taken: int = 0
    _in_a_row: int = 0
    _steps: list[_Step] = field(default_factory=list)

    def note(
        self,
        iteration: int,
        names: Sequence[str],
        losses: Mapping[str, Tensor],
        skipped: Tensor,
        lq_sum: Tensor,
        teacher_sums: Sequence[Mapping[str, Tensor]],
    ) -> None:
        """Note a step, without looking at it: the files of its images, its losses, and scalars of the device.

        These are whether it was skipped, alike on every rank; the sum of its LR images; and, for each part of the step,
        the sums of the teachers' outputs by name.
        """
        # one copy, in one call, as a CUDA graph's tensors are overwritten in its next step
        told = [value for part in teacher_sums for value in part.values()]
        kept = torch.stack([skipped.to(torch.float32), lq_sum.to(torch.float32), *told]).unbind()
        rest = iter(kept[2:])
        of_parts = [{name: next(rest) for name in part} for part in teacher_sums]
        self._steps.append(_Step(iteration, names, losses, kept[0], kept[1], of_parts))

    def check(self) -> None:
        """Look at the steps since the last call. Every rank must call it; it waits for the device."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        flags = torch.stack([step.skipped for step in steps]).tolist()
        for step, skipped in zip(steps, flags, strict=True):
            self._in_a_row = self._in_a_row + 1 if skipped else 0
            self.taken += not skipped
            if skipped:
                text = f'iteration {step.iteration:,} was skipped: {self._what_is_wrong(step)}'
                get_root_logger().warning(text)
            if self._in_a_row > self.limit:
                raise RunError(
                    f'{text}; that is {self._in_a_row} in a row, more than train:max_skipped_steps. The weights are as '
                    'before them: look at these images, or go on from the last state with a lower learning rate.'
                )

    def _what_is_wrong(self, step: _Step) -> str:
        """Which losses are not finite on which images, on any rank."""
        bad = [name for name, value in step.losses.items() if not torch.isfinite(value)]
        text = f'{" and ".join(bad)} not finite on {", ".join(step.names) or "its images"}' if bad else ''
        for name, file in self.teacher_files.items():
            sums = [part[name] for part in step.teacher_sums if name in part]
            if torch.isfinite(step.lq_sum) and not all(torch.isfinite(value) for value in sums):
                text += f'{"; " if text else ""}the output of the teacher in {file} is not finite'
        _, size = rank_and_size()
        texts: list[str | None] = [text]
        if size > 1:
            texts = [None] * size
            torch.distributed.all_gather_object(texts, text)
        if not any(texts):
            texts = [f'the gradient is not finite, on {", ".join(step.names) or "its images"}']
        return '; '.join(text for text in texts if text)
