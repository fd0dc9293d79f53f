"""What a subclass of DistillModel may override, besides BasicSR's own hooks."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mipkd_sr.evaluation.inference import RunBy, in_whole_windows, needs_whole_windows, prepare_network


class ModelHooks:
    """Hooks with a default that a subclass may override.

    Of BasicSR's hooks ``init_training_settings``, ``setup_optimizers``, ``optimize_parameters``, ``test`` and
    ``get_current_log`` may be overridden, too; call the base class's to keep what it does.
    """

    net_g: nn.Module
    opt: Any
    teachers: Mapping[str, nn.Module]
    is_train: bool
    lq: Tensor
    has_gt: list[bool] | None = None
    output: Tensor
    step: nn.Module
    schedulers: list[Any]

    own_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the class's own, which are checked as all others: forms of ``mipkd_sr.options.forms`` (or NETWORK,
    OPTIMIZER, LOSS of ``mipkd_sr.options.keys``) by key; ``train:optim_d`` is one in the section ``train``."""

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rate of a step; BasicSR's hook.

        After the warm-up it is what the schedule alone would give. Many schedules compute the next rate from the
        current one, which during the warm-up is not the schedule's.
        """
        if current_iter <= warmup_iter:
            for scheduler in self.schedulers:
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                    group['lr'] = rate
        super().update_learning_rate(current_iter, warmup_iter)  # type: ignore[misc]  # BaseModel's

    def extra_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """For subclasses: losses besides the objectives', such as a discriminator's view of the output.

        Args:
            sr: The student's output, B x 3 x sH x sW, values in about [0, 1], with gradients.
            gt: HR images, as ``sr``, values in [0, 1]. Their LR images are ``self.lq``.

        Returns:
            Weighted losses, scalars, by the name under which they are logged (``l_...``); they are added to the total.
        """
        return {}

    def _extra_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """``extra_losses`` of the samples that have HR, weighted by their share."""
        if self.has_gt is None:
            return self.extra_losses(sr, gt)
        rows = torch.tensor(self.has_gt)
        share = sum(self.has_gt) / len(sr)
        losses = self.extra_losses(sr[rows], gt[rows]) if share else {}
        return {name: share * loss for name, loss in losses.items()}

    def extra_state(self) -> dict[str, Any]:
        """For subclasses: what else training changes, besides student, objectives, optimizers and schedules.

        It is kept in the training state, as state dicts, tensors, numbers and text, in lists and dicts.
        """
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """For subclasses: take back what ``extra_state`` gave."""

    def infer(self, net: nn.Module, lq: Tensor) -> Tensor:
        """For subclasses: how the student and a teacher are run on the images of a validation.

        Args:
            net: The network, in evaluation mode.
            lq: LR images, B x 3 x H x W, values in [0, 1]. Here they are padded to whole windows, for a network that
                has windows and does not pad them itself (HAT, BasicSR's SwinIR).

        Returns:
            SR images, B x 3 x sH x sW.
        """
        return in_whole_windows(net, lq) if needs_whole_windows(net) else net(lq)

    def net_for_testing(self) -> nn.Module:
        """The moving average of the student where there is one, else the student."""
        return getattr(self, 'net_g_ema', self.net_g)

    def test(self) -> None:
        """Run the student on the batch that was fed; BasicSR's hook."""
        net = self.net_for_testing().eval()
        with torch.no_grad():
            self.output = self.infer(net, self.lq)
        self.net_g.train(self.is_train)

    def _gradients_averaged_if(self, wanted: bool) -> AbstractContextManager[None]:
        """Averaging over ranks costs time, and is needed in the last part of a step alone."""
        if wanted or not isinstance(self.step, DistributedDataParallel):
            return nullcontext()
        return self.step.no_sync()

    def _run_by_test(self, lq: Tensor) -> Tensor:
        """The student's output by a subclass's own ``test``, as BasicSR's models have one."""
        self.lq = lq
        self.test()
        return self.output

    def as_validated(self) -> dict[str, RunBy]:
        """The student and the teachers by name, as a validation runs them."""
        student = self.net_for_testing()
        has_own_test = type(self).test is not ModelHooks.test
        runs = {'student': (student, self._run_by_test if has_own_test else partial(self.infer, student))}
        runs |= {name: (net, partial(self.infer, net)) for name, net in self.teachers.items()}
        val = self.opt['val']
        tiled = partial(prepare_network, tile=val['tile'], overlap=val['tile_overlap'])
        return {name: RunBy(net, tiled(run)) for name, (net, run) in runs.items()}
