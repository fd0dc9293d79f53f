"""Somebody else's network as head, body and tail, without a change to it: its own layers, called in three parts."""

from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.utils.registry import ARCH_REGISTRY
from torch.nn import functional as F

from mipkd_sr.archs.staged import Body


@ARCH_REGISTRY.register()
class StagedMSRResNet(MSRResNet):
    def __init__(self, num_in_ch=3, num_out_ch=3, num_feat=64, num_block=16, upscale=4):
        super().__init__(num_in_ch, num_out_ch, num_feat, num_block, upscale)
        self.body = Body(*self.body)  # the same blocks under the same names, that can be entered and left anywhere
        self.depth = num_block

    def head(self, lq):
        return self.lrelu(self.conv_first(lq)), lq  # the tail adds the enlarged input: that is the context

    def tail(self, feature, lq):
        feature = self.lrelu(self.pixel_shuffle(self.upconv1(feature)))
        if self.upscale == 4:
            feature = self.lrelu(self.pixel_shuffle(self.upconv2(feature)))
        base = F.interpolate(lq, scale_factor=self.upscale, mode='bilinear', align_corners=False)
        return self.conv_last(self.lrelu(self.conv_hr(feature))) + base

    def forward(self, x):
        feature, lq = self.head(x)
        return self.tail(self.body(feature), lq)
