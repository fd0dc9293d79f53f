"""BasicSR's PerceptualLoss, with VGG from a file of the user's, and VGG in no training state."""

from collections.abc import Mapping

from basicsr.archs import vgg_arch
from basicsr.losses import basic_loss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn


class PerceptualLoss(basic_loss.PerceptualLoss):
    """``perceptual_weight * sum_l w_l * |f_l(S) - f_l(HR)|``, f_l features of VGG; and a style loss of their products.

    Args:
        layer_weights: Weight of each layer by its name, such as conv5_4, before its ReLU.
        vgg_type: torchvision's network.
        use_input_norm, range_norm: Whether images are normalised as VGG's were; whether they are in [-1, 1].
        perceptual_weight: Weight of the loss.
        style_weight: Weight of the style loss.
        criterion: l1, or fro (Frobenius norm); BasicSR's l2 names a class that PyTorch has not.
        vgg_file: File of torchvision's weights; if None they are looked for where BasicSR does, else downloaded.

    Raises:
        ValueError: If the weights are not to be had, or a layer or the criterion is none.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_type: str = 'vgg19',
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: str = 'l1',
        vgg_file: str | None = None,
    ) -> None:
        if criterion not in ('l1', 'fro'):
            raise ValueError(f"criterion is l1 or fro, not '{criterion}'")
        usual = vgg_arch.VGG_PRETRAIN_PATH
        vgg_arch.VGG_PRETRAIN_PATH, weights = vgg_file or usual, (perceptual_weight, style_weight)
        try:
            super().__init__(dict(layer_weights), vgg_type, use_input_norm, range_norm, *weights, criterion)
        except (OSError, RuntimeError, KeyError, AttributeError) as error:
            raise ValueError(f"VGG is not to be had ({error}); give torchvision's file as vgg_file") from None
        finally:
            vgg_arch.VGG_PRETRAIN_PATH = usual
        self._vgg = [self._modules.pop('vgg')]  # in a list: not this module's own, so in no training state

    @property
    def vgg(self) -> nn.Module | None:
        """VGG's features."""
        return self._vgg[0]

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Perceptual and style loss of images, B x 3 x H x W, values in [0, 1]; None for one of weight 0."""
        if self.vgg is not None:
            self.vgg.to(x.device)
        return super().forward(x, gt)


LOSS_REGISTRY._obj_map['PerceptualLoss'] = PerceptualLoss
