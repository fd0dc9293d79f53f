"""What a subclass of DistillModel may override, besides BasicSR's own hooks."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mipkd_sr.evaluation.inference import in_whole_windows, needs_whole_windows


class ModelHooks:
    """Hooks that do nothing, or the usual, unless a subclass overrides them.

    Of BasicSR's hooks ``init_training_settings``, ``setup_optimizers``, ``optimize_parameters``, ``test`` and
    ``get_current_log`` may be overridden, too; call the base class's where it is to be done as well.
    """

    own_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the class's own, which are checked as all others: forms of ``mipkd_sr.options.forms`` (or NETWORK,
    OPTIMIZER, LOSS of ``mipkd_sr.options.keys``) by key; ``train:optim_d`` is one in the section ``train``."""

    def extra_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """For subclasses: losses besides the objectives', such as a discriminator's view of the output.

        Args:
            sr: The student's output, B x 3 x sH x sW, values in about [0, 1], with gradients.
            gt: HR images, as ``sr``, values in [0, 1].

        Returns:
            Weighted losses, scalars, by the name under which they are logged (``l_...``); they are added to the total.
        """
        return {}

    def extra_state(self) -> dict[str, Any]:
        """For subclasses: what training changes besides student, objectives, optimizers and schedules.

        It is kept in the training state: state dicts, tensors, numbers, text, in lists and dicts.
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
