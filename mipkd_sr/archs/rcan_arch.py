"""RCAN as head, body and tail.

Paper: Image Super-Resolution Using Very Deep Residual Channel Attention Networks, https://arxiv.org/abs/1807.02758
"""

from basicsr.archs.rcan_arch import RCAN
from basicsr.utils.registry import ARCH_REGISTRY

from mipkd_sr.archs.staged import ConvolutionalStages


@ARCH_REGISTRY.register()
class StagedRCAN(ConvolutionalStages, RCAN):
    """BasicSR's RCAN, taken apart: the same parameters, the same output to the last bit.

    Args:
        num_in_ch: Channels of the input images.
        num_out_ch: Channels of the output images.
        num_feat: Width of the body.
        num_group: Residual groups, the units of the body.
        num_block: Channel attention blocks in a group. The papers' teacher has 20, their student 6.
        squeeze_factor: Channels are divided by it inside channel attention.
        upscale: Scale, 2^n or 3.
        res_scale: Factor on each residual.
        img_range: The network's inner image range; images outside it are in [0, 1].
        rgb_mean: Mean of the training images, in [0, 1]; of images of other than three channels it is the grey value.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_group: int = 10,
        num_block: int = 16,
        squeeze_factor: int = 16,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: tuple[float, float, float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        super().__init__(**{name: value for name, value in locals().items() if name not in ('self', '__class__')})
        self.use_stages(num_in_ch, num_out_ch)
