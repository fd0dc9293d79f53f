"""VQGAN's encoder and codebook: features of images, and how near each place is to each word of a codebook.

Paper: Taming Transformers for High-Resolution Image Synthesis, https://arxiv.org/abs/2012.09841. The parameters have
the names of the authors' program, CompVis/taming-transformers, so that its checkpoints load: with the arguments'
defaults ``vqgan_imagenet_f16_1024``. No decoder: nothing here draws images.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.runtime.checkpoint import load_file


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width), width, eps=1e-6)


class _ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(width_in), nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2, self.conv2 = _norm(width_out), nn.Conv2d(width_out, width_out, 3, padding=1)
        if width_in != width_out:
            self.nin_shortcut = nn.Conv2d(width_in, width_out, 1)

    def forward(self, feature: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(feature)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + (self.nin_shortcut(feature) if hasattr(self, 'nin_shortcut') else feature)


class _Attention(nn.Module):
    """Attention of every place to every place, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, feature: Tensor) -> Tensor:
        normed = self.norm(feature)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(feature.shape)
        return feature + self.proj_out(mixed)


class _Level(nn.Module):
    def __init__(self, width_in: int, width_out: int, blocks: int, with_attention: bool, is_last: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_ResidualBlock(width_in if i == 0 else width_out, width_out) for i in range(blocks))
        self.attn = nn.ModuleList(_Attention(width_out) for _ in range(blocks if with_attention else 0))
        if not is_last:
            halved = nn.Conv2d(width_out, width_out, 3, stride=2)
            self.downsample = nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=halved))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the first residual block, and that of the whole level."""
        first = None
        for number, block in enumerate(self.block):
            feature = block(feature)
            first = feature if first is None else first
            if self.attn:
                feature = self.attn[number](feature)
        assert first is not None
        return first, self.downsample(feature) if hasattr(self, 'downsample') else feature


class _Encoder(nn.Module):
    def __init__(self, width: int, factors: Sequence[int], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [width * factor for factor in factors]
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        last = len(widths) - 1
        self.down = nn.ModuleList(
            _Level(before, after, blocks, level == last, level == last)
            for level, (before, after) in enumerate(zip([width, *widths], widths, strict=False))
        )
        width = widths[-1]
        middle = {'block_1': _ResidualBlock(width, width), 'attn_1': _Attention(width)}
        self.mid = nn.Sequential(OrderedDict(middle, block_2=_ResidualBlock(width, width)))
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, latent, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        feature = self.conv_in(images)
        for level in self.down:
            _, feature = level(feature)
        return self.conv_out(F.silu(self.norm_out(self.mid(feature))))

    def features(self, images: Tensor) -> list[Tensor]:
        feature, kept = self.conv_in(images), []
        for level in self.down[:-1]:
            first, feature = level(feature)
            kept.append(first)
        return [*kept, self.down[-1].block[0](feature)]  # type: ignore[index, operator]


class VQGAN(nn.Module):
    """Encoder and codebook; images are B x 3 x H x W in [-1, 1].

    Each level, of the first convolution's ``width`` times its factor, has as many residual blocks, and each but the
    last halves the image; the last has attention. ``latent`` are the channels that the encoder ends with, ``embed_dim``
    is the length of a word of the codebook.
    """

    def __init__(
        self,
        width: int = 128,
        factors: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        latent: int = 256,
        embed_dim: int = 256,
        words: int = 1024,
    ) -> None:
        super().__init__()
        self.encoder = _Encoder(width, factors, blocks, latent)
        self.quant_conv = nn.Conv2d(latent, embed_dim, 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(words, embed_dim)

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of the first residual block of each level, from the finest on."""
        return self.encoder.features(images)

    def log_distribution(self, images: Tensor) -> Tensor:
        """``log softmax_j(-|z - e_j|^2)`` for each place's ``z`` and each word ``e_j``: B x h x w x words."""
        latent = self.quant_conv(self.encoder(images)).permute(0, 2, 3, 1)
        words = self.quantize.embedding.weight  # type: ignore[union-attr]
        # |z|^2 is the same for every word, so it goes out of the softmax
        return F.log_softmax(2 * latent @ words.T - words.square().sum(1), -1)  # type: ignore[operator]


def load_vqgan(file: str | os.PathLike[str] | None) -> VQGAN:
    """VQGAN of 16 x 16 pixels a word and 1024 words, from the authors' checkpoint; frozen, in evaluation mode.

    Raises:
        ValueError: If there is no such file, or it holds another network.
    """
    if file is None:
        raise ValueError(
            "needs VQGAN's weights; give the path of taming-transformers' vqgan_imagenet_f16_1024 (last.ckpt, or its "
            'state_dict saved by itself) as vqgan_file'
        )
    content = load_file(file)
    weights = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    net = VQGAN()
    own = net.state_dict()
    fitting = {name: weights[name] for name in own if getattr(weights.get(name), 'shape', None) == own[name].shape}
    if len(fitting) < len(own):
        absent = next(name for name in own if name not in fitting)
        raise ValueError(f'{file} does not hold VQGAN of 16 x 16 pixels a word and 1024 words: it has no such {absent}')
    net.load_state_dict(fitting)
    return net.eval().requires_grad_(False)
