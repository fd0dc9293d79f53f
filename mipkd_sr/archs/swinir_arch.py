"""SwinIR as head, body and tail.

Paper: SwinIR: Image Restoration Using Swin Transformer, https://arxiv.org/abs/2108.10257
"""

from collections.abc import Sequence
from typing import NamedTuple

from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from mipkd_sr.archs.staged import Composed, padded


class SwinIRContext(NamedTuple):
    """What SwinIR's body and tail need besides the feature map."""

    skip: Tensor
    """The long skip connection, B x C x H x W, padded to whole windows."""
    image: Tensor
    """The normalised input, B x 3 x H x W, padded to whole windows; the networks without upsampler add to it."""
    size: tuple[int, int]
    """Height and width of the input before padding."""


@ARCH_REGISTRY.register()
class StagedSwinIR(Composed, SwinIR):
    """BasicSR's SwinIR, taken apart: the same parameters, the same output to the last bit.

    BasicSR's network takes sizes that are whole windows only. This one takes any size: it pads the image at its right
    and bottom edge (reflected, as BasicSR's SwinIRModel pads; replicated where the image is smaller than the padding),
    and crops the output.

    Args:
        img_size: Size of the training patches; attention masks for it are kept, for other sizes they are made.
        patch_size: Pixels a token; 1 in every published model.
        in_chans: Channels of the images.
        embed_dim: Width of the body. The papers' teacher has 180, their student 60.
        depths: Layers in each RSTB; the RSTBs are the units of the body.
        num_heads: Attention heads in each RSTB.
        window_size: Side of a window, in pixels.
        mlp_ratio: Width of the MLPs over ``embed_dim``.
        qkv_bias: Whether queries, keys and values have a bias.
        qk_scale: Scale of the attention; head width ** -0.5 if None.
        drop_rate: Dropout rate.
        attn_drop_rate: Dropout rate of the attention.
        drop_path_rate: Stochastic depth rate, in training mode alone.
        ape: Whether to add an absolute position embedding; it fixes the image size to ``img_size``.
        patch_norm: Whether to normalise tokens before the body.
        use_checkpoint: Not supported by BasicSR 1.4.2, whose call lacks an argument; must be false.
        upscale: Scale.
        img_range: The network's inner image range; images outside it are in [0, 1].
        upsampler: 'pixelshuffle', 'pixelshuffledirect', 'nearest+conv', or '' for none.
        resi_connection: '1conv' or '3conv'.

    Raises:
        ValueError: If ``use_checkpoint`` is true.
    """

    takes_any_size = True

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = '',
        resi_connection: str = '1conv',
    ) -> None:
        if use_checkpoint:
            raise ValueError('use_checkpoint does not work in BasicSR 1.4.2: set it to false.')
        depths, num_heads = tuple(depths), tuple(num_heads)
        super().__init__(**{name: value for name, value in locals().items() if name not in ('self', '__class__')})
        mean = self.__dict__.pop('mean')  # see ConvolutionalStages.use_stages
        self.register_buffer('mean', mean, persistent=False)
        self.window_size = window_size
        self.depth = self.num_layers

    def head(self, lq: Tensor) -> tuple[Tensor, SwinIRContext]:
        """B x 3 x H x W in [0, 1] -> the first feature map, B x embed_dim x H' x W', H' and W' whole windows."""
        height, width = lq.shape[-2:]
        below, beside = -height % self.window_size, -width % self.window_size
        image = ((padded(lq, below, beside) if below or beside else lq) - self.mean) * self.img_range
        skip = self.conv_first(image)
        tokens = self.patch_embed(skip)
        if self.ape:
            tokens = tokens + self.absolute_pos_embed
        tokens = self.pos_drop(tokens)
        return self.patch_unembed(tokens, skip.shape[-2:]), SwinIRContext(skip, image, (height, width))

    def body(self, feature: Tensor, context: SwinIRContext, start: int = 0, stop: int | None = None) -> Tensor:
        """Send ``feature`` (B x embed_dim x H' x W') through the RSTBs ``start`` to ``stop``; shape unchanged."""
        size = (feature.shape[-2], feature.shape[-1])
        tokens = feature.flatten(2).transpose(1, 2)
        for layer in self.layers[start:stop]:
            tokens = layer(tokens, size)
        return self.patch_unembed(tokens, size)

    def tail(self, feature: Tensor, context: SwinIRContext) -> Tensor:
        """The body's output, B x embed_dim x H' x W' -> SR, B x 3 x sH x sW."""
        tokens = self.norm(feature.flatten(2).transpose(1, 2))
        feature = self.conv_after_body(self.patch_unembed(tokens, feature.shape[-2:])) + context.skip
        sr = self._upsample(feature, context) / self.img_range + self.mean
        height, width = context.size
        return sr[..., : height * self.upscale, : width * self.upscale]

    def _upsample(self, feature: Tensor, context: SwinIRContext) -> Tensor:
        if self.upsampler == 'pixelshuffle':
            return self.conv_last(self.upsample(self.conv_before_upsample(feature)))
        if self.upsampler == 'pixelshuffledirect':
            return self.upsample(feature)
        if self.upsampler == 'nearest+conv':
            feature = self.conv_before_upsample(feature)
            for conv in (self.conv_up1, self.conv_up2):
                feature = self.lrelu(conv(F.interpolate(feature, scale_factor=2, mode='nearest')))
            return self.conv_last(self.lrelu(self.conv_hr(feature)))
        return context.image + self.conv_last(feature)
