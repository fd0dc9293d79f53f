"""EDSR as head, body and tail.

Paper: Enhanced Deep Residual Networks for Single Image Super-Resolution, https://arxiv.org/abs/1707.02921
"""

from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.swinir_arch import UpsampleOneStep
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from mipkd_sr.archs.staged import ConvolutionalStages

UPSAMPLERS = ('pixelshuffle', 'pixelshuffledirect')
"""EDSR's own tail, and that of the networks for phones and CPUs."""


@ARCH_REGISTRY.register()
class StagedEDSR(ConvolutionalStages, EDSR):
    """BasicSR's EDSR, taken apart: the same parameters, the same output to the last bit.

    Args:
        num_in_ch: Channels of the input images.
        num_out_ch: Channels of the output images.
        num_feat: Width of the body. The papers' teacher has 256, their students 64.
        num_block: Residual blocks, the units of the body. The papers' teacher has 32, their students 32 or 16.
        upscale: Scale, 2^n or 3.
        res_scale: Factor on each residual; BasicSR uses 0.1 with 256 channels.
        img_range: The network's inner image range; images outside it are in [0, 1].
        rgb_mean: Mean of the training images, in [0, 1]; of images of other than three channels it is the grey value.
        upsampler: 'pixelshuffle', EDSR's own: convolutions to 4 num_feat channels (9 at x3) and pixel shuffles, and one
            more at the size of the SR image; or 'pixelshuffledirect', as of SwinIR's lightweight network: one
            convolution to upscale^2 num_out_ch channels and one pixel shuffle. With 16 channels and 4 blocks the
            second has 0.71, 0.55 and 0.38 of the first's multiply-adds at x2, x3 and x4.

    Raises:
        ValueError: If the upsampler is none of these.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: tuple[float, float, float] = (0.4488, 0.4371, 0.4040),
        upsampler: str = 'pixelshuffle',
    ) -> None:
        if upsampler not in UPSAMPLERS:
            raise ValueError(f'upsampler is {upsampler!r}; give one of {", ".join(UPSAMPLERS)}')
        super().__init__(num_in_ch, num_out_ch, num_feat, num_block, upscale, res_scale, img_range, rgb_mean)
        if upsampler == 'pixelshuffledirect':
            self.upsample = UpsampleOneStep(upscale, num_feat, num_out_ch)
            self.conv_last = nn.Identity()
        self.use_stages(num_in_ch, num_out_ch)
