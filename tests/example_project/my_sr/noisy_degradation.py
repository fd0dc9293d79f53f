"""A degradation: antialiased bicubic, and Gaussian noise of a strength drawn for each image."""

import torch

from mipkd_sr.data.degradations import DEGRADATION_REGISTRY, Degradation
from mipkd_sr.imresize import imresize


@DEGRADATION_REGISTRY.register()
class Noisy(Degradation):
    def __init__(self, most: float = 10.0):
        super().__init__()
        self.most = most

    def forward(self, hr, scale, sample):
        """1 x 3 x H x W -> 1 x 3 x H/s x W/s, values in [0, 1]; what is drawn here a resumed run draws again."""
        lq = imresize(hr, 1 / scale)
        return lq + torch.randn_like(lq) * torch.rand(1).item() * self.most / 255
