"""Any architecture that spandrel knows, from a checkpoint alone: a teacher for objectives of the output.

spandrel (https://github.com/chaiNNer-org/spandrel) reads from a checkpoint which network it is of: ATD, DAT, HAT, and
some forty others. It is an extra dependency: ``pip install 'mipkd_sr[spandrel]'``.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mipkd_sr.archs.staged import padded
from mipkd_sr.runtime.checkpoint import load_file


@ARCH_REGISTRY.register()
class Spandrel(nn.Module):
    """A network whose architecture and options follow from its checkpoint; before that is loaded it is none.

    It has no head, body and tail: objectives of features, and of paths through the teacher, are not defined for it.

    Args:
        upscale: The scale that the checkpoint must be of; any if None.
    """

    def __init__(self, upscale: int | None = None) -> None:
        super().__init__()
        self.upscale = upscale
        self.description = 'Spandrel'
        self.net: nn.Module | None = None
        self.requirements: Any = None

    def load_checkpoint(self, file: str | os.PathLike[str], param_key: str = 'params') -> None:
        """Become the network that a checkpoint is of.

        Args:
            file: The checkpoint, of tensors alone; pickled code is refused.
            param_key: Which of the weights in it to take, if it has them; else what spandrel takes.

        Raises:
            ValueError: If spandrel is not installed or does not know it, or it is no network for colour images of the
                right scale.
        """
        try:
            import spandrel
        except ModuleNotFoundError:
            raise ValueError(
                "Spandrel needs spandrel, which is not installed; pip install 'mipkd_sr[spandrel]'"
            ) from None
        content = load_file(file)
        weights = content.get(param_key, content) if isinstance(content, Mapping) else content
        try:
            found = spandrel.ModelLoader('cpu').load_from_state_dict(spandrel.canonicalize_state_dict(dict(weights)))
        except Exception as error:  # the architectures' own loaders raise whatever they meet
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f'{file} is of no architecture that spandrel {spandrel.__version__} loads ({reason})'
            ) from None
        name = found.architecture.name
        if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose != 'SR':
            raise ValueError(f'{file} holds {name}, which is no network for super-resolution')
        if (found.input_channels, found.output_channels) != (3, 3):
            channels = f'{found.input_channels} to {found.output_channels} channels'
            raise ValueError(f'{file} holds {name} for {channels}, not for colour images')
        if self.upscale not in (None, found.scale):
            raise ValueError(f'{file} holds {name} of scale {found.scale}, not {self.upscale}')
        self.upscale, self.requirements = found.scale, found.size_requirements
        self.net = found.model.train(self.training)
        self.description = f"Spandrel's {name}, for objectives of the output"

    def forward(self, lq: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x sH x sW; what the architecture asks of the size is added and cut away.

        Raises:
            ValueError: If no checkpoint was loaded.
        """
        if self.net is None or self.upscale is None:
            raise ValueError('Spandrel takes its architecture from a checkpoint, and none was given')
        height, width = lq.shape[-2:]
        right, bottom = self.requirements.get_padding(width, height)
        lq = padded(lq, bottom, right) if right or bottom else lq
        sr: Tensor = self.net(lq.clone())  # some architectures change what they are given
        return torch.as_tensor(sr)[..., : height * self.upscale, : width * self.upscale]
