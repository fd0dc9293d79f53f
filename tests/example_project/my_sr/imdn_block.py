"""The block of IMDN: of each convolution's output a quarter is kept, the rest goes on."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.parts = [width // 4, width - width // 4]
        for name, taken in (('conv1', width), ('conv2', self.parts[1]), ('conv3', self.parts[1])):
            setattr(self, name, nn.Sequential(nn.Conv2d(taken, width, 3, 1, 1), nn.LeakyReLU(0.05)))
        self.conv4 = nn.Conv2d(self.parts[1], self.parts[0], 3, 1, 1)
        self.conv1x1 = nn.Conv2d(width, width, 1)

    def forward(self, x):
        kept, rest = [], x
        for layer in (self.conv1, self.conv2, self.conv3):
            part, rest = layer(rest).split(self.parts, 1)
            kept.append(part)
        return x + self.conv1x1(torch.cat([*kept, self.conv4(rest)], 1))
