"""Degradations: LR images made of HR images as a run trains, on its device.

A degradation is a registered class. It is given one HR image at a time, and draws from Python's, NumPy's or torch's
default generator, which are seeded for each sample: what a sample becomes is a function of the run's seed, the epoch
and the sample's index, so that a resumed run, or one on more processes, makes the same images.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from basicsr.data.degradations import random_add_gaussian_noise_pt, random_add_poisson_noise_pt
from basicsr.data.transforms import paired_random_crop
from basicsr.utils import DiffJPEG
from basicsr.utils.img_process_util import filter2D
from basicsr.utils.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.imresize import imresize
from mipkd_sr.runtime.errors import blamed_on
from mipkd_sr.runtime.seeding import preserved_random_state, seed_everything

DEGRADATION_REGISTRY = Registry('degradation')
"""Degradations by their class's name."""
MODES = ['area', 'bilinear', 'bicubic']
BOUNDS = {
    'resize_range': (0.05, 16), 'noise_range': (0, 255), 'poisson_scale_range': (0, 255), 'jpeg_range': (1, 100),
}  # fmt: skip
STAGE = (
    'resize_prob', 'resize_range', 'gaussian_noise_prob', 'noise_range', 'poisson_scale_range', 'gray_noise_prob',
    'jpeg_range',
)  # fmt: skip


class USMSharp(nn.Module):
    """BasicSR's USMSharp, unsharp masking, to rounding; its blur of 51 x 51 is of columns, then of rows."""

    gaussian: Tensor

    def __init__(self) -> None:
        super().__init__()
        gaussian = torch.from_numpy(cv2.getGaussianKernel(51, 0)).float().view(1, 1, -1, 1)
        self.register_buffer('gaussian', gaussian, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Images, B x C x H x W, values in [0, 1], sharpened where they are not flat."""
        residual = image - self._blur(image)
        mask = self._blur((residual.abs() * 255 > 10).to(image.dtype))
        return mask * (image + 0.5 * residual).clamp(0, 1) + (1 - mask) * image

    def _blur(self, image: Tensor) -> Tensor:
        mode = 'reflect' if min(image.shape[-2:]) > 25 else 'replicate'
        planes = F.pad(image, (25, 25, 25, 25), mode).flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(planes, self.gaussian), self.gaussian.transpose(2, 3)).view_as(image)


class Degradation(nn.Module):
    """From an HR image to its LR image; a subclass has a ``forward`` of its own."""

    needs: ClassVar[Sequence[str]] = ()
    """What each sample of the data set must have besides ``gt``."""

    def forward(self, hr: Tensor, scale: int, sample: Mapping[str, Tensor]) -> Tensor:
        """The LR image, 1 x 3 x H/s x W/s; the caller rounds it to 8 bits.

        Args:
            hr: 1 x 3 x H x W, values in [0, 1]; the scale divides H and W.
            scale: Super-resolution factor.
            sample: What else the data set gives of the sample, each with a first dimension of 1.
        """
        raise NotImplementedError


@DEGRADATION_REGISTRY.register()
class Bicubic(Degradation):
    """MATLAB's antialiased bicubic, not rounded between its passes: what is done where nothing else is asked for."""

    @override
    def forward(self, hr: Tensor, scale: int, sample: Mapping[str, Tensor]) -> Tensor:
        return imresize(hr, Fraction(1, scale))


@DEGRADATION_REGISTRY.register()
class RealESRGANDegradation(Degradation):
    """Real-ESRGAN's second-order degradation (https://arxiv.org/abs/2107.10833, Section 3), as BasicSR has it.

    Blur, resizing, noise and JPEG, twice, and a sinc filter. The kernels are the data set's (RealESRGANDataset). For a
    batch of one the arithmetic and the order of the draws are BasicSR's. There a batch shares one choice of sizes and
    of noise, and a pool of ``queue_size`` pairs mixes the batches; here every sample has its own choices, so that no
    pool is needed, and none has to be kept in a training state.

    Args:
        resize_prob: Probabilities of the first resizing: up, down, keep.
        resize_range: Least and greatest factor of it.
        gaussian_noise_prob: Probability of Gaussian noise; it is Poisson noise otherwise.
        noise_range: Least and greatest deviation of the Gaussian noise, for values in 0..255.
        poisson_scale_range: Least and greatest scale of the Poisson noise.
        gray_noise_prob: Probability of noise that is alike in all channels.
        jpeg_range: Least and greatest quality of the JPEG compression.
        second_blur_prob: Probability of the second blur.
        resize_prob2: As ``resize_prob``, of the second degradation; so are the others that end in 2.
        sharpen: Whether the HR image is sharpened before (unsharp masking).

    Raises:
        ValueError: If a range is empty, or the probabilities are none.
    """

    needs = ('kernel1', 'kernel2', 'sinc_kernel')

    def __init__(
        self,
        resize_prob: Sequence[float] = (0.2, 0.7, 0.1),
        resize_range: Sequence[float] = (0.15, 1.5),
        gaussian_noise_prob: float = 0.5,
        noise_range: Sequence[float] = (1, 30),
        poisson_scale_range: Sequence[float] = (0.05, 3),
        gray_noise_prob: float = 0.4,
        jpeg_range: Sequence[float] = (30, 95),
        second_blur_prob: float = 0.8,
        resize_prob2: Sequence[float] = (0.3, 0.4, 0.3),
        resize_range2: Sequence[float] = (0.3, 1.2),
        gaussian_noise_prob2: float = 0.5,
        noise_range2: Sequence[float] = (1, 25),
        poisson_scale_range2: Sequence[float] = (0.05, 2.5),
        gray_noise_prob2: float = 0.4,
        jpeg_range2: Sequence[float] = (30, 95),
        sharpen: bool = True,
    ) -> None:
        given = locals()
        super().__init__()
        for number in ('', '2'):
            shares, factors = given[f'resize_prob{number}'], given[f'resize_range{number}']
            if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
                raise ValueError(f'resize_prob{number} must be three probabilities, of up, down and keep, not {shares}')
            for name, bounds in BOUNDS.items():
                check_range(f'{name}{number}', given[f'{name}{number}'], *bounds)
            if not factors[0] <= 1 <= factors[1]:
                raise ValueError(f'resize_range{number} must hold 1, where resizing up or down starts, not {factors}')
        self.first, self.second = ([given[f'{name}{number}'] for name in STAGE] for number in ('', '2'))
        self.second_blur_prob = second_blur_prob
        self.jpeg = DiffJPEG(differentiable=False).requires_grad_(False)
        self.usm = USMSharp() if sharpen else None

    def forward(self, hr: Tensor, scale: int, sample: Mapping[str, Tensor]) -> Tensor:
        """See ``Degradation.forward``; ``sample`` has ``kernel1``, ``kernel2`` and ``sinc_kernel``, 1 x K x K each."""
        shares, factors, *noise, quality = self.first
        out = filter2D(self.usm(hr) if self.usm else hr, sample['kernel1'])
        out = F.interpolate(out, scale_factor=_factor(shares, factors), mode=random.choice(MODES))
        out = self._compress(_add_noise(out, *noise), quality)
        if np.random.uniform() < self.second_blur_prob:
            out = filter2D(out, sample['kernel2'])
        shares, factors, *noise, quality = self.second
        factor = _factor(shares, factors)
        size = [int(side / scale * factor) for side in hr.shape[-2:]]
        out = _add_noise(F.interpolate(out, size=size, mode=random.choice(MODES)), *noise)
        sinc_first = np.random.uniform() < 0.5
        if not sinc_first:
            out = self._compress(out, quality)
        size = [side // scale for side in hr.shape[-2:]]
        out = filter2D(F.interpolate(out, size=size, mode=random.choice(MODES)), sample['sinc_kernel'])
        return self._compress(out, quality) if sinc_first else out

    def _compress(self, image: Tensor, quality: Sequence[float]) -> Tensor:
        return self.jpeg(image.clamp(0, 1), quality=image.new_zeros(len(image)).uniform_(*quality))


def check_range(name: str, value: Sequence[float], least: float, greatest: float) -> None:
    """Refuse what is no pair of numbers, the smaller first, between ``least`` and ``greatest``.

    Raises:
        ValueError: If it is none.
    """
    if len(value) != 2 or not least <= value[0] <= value[1] <= greatest:
        raise ValueError(f'{name} must be two numbers from {least} to {greatest}, the smaller first, not {list(value)}')


def _factor(probabilities: Sequence[float], factors: Sequence[float]) -> float:
    """A factor of a resizing: above 1, below 1, or 1."""
    kind = random.choices(['up', 'down', 'keep'], probabilities)[0]
    if kind == 'keep':
        return 1
    return np.random.uniform(1, factors[1]) if kind == 'up' else np.random.uniform(factors[0], 1)


def _add_noise(image: Tensor, gaussian: float, sigmas: Sequence[float], scales: Sequence[float], grey: float) -> Tensor:
    if np.random.uniform() < gaussian:
        return random_add_gaussian_noise_pt(image, sigma_range=sigmas, clip=True, rounds=False, gray_prob=grey)
    return random_add_poisson_noise_pt(image, scale_range=scales, gray_prob=grey, clip=True, rounds=False)


@torch.no_grad()
def degrade(
    batch: Mapping[str, Any], degradation: Degradation, scale: int, gt_size: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Make LR images of a batch of HR images, each by its own random numbers.

    Args:
        batch: ``gt`` (B x 3 x H x W, values in [0, 1]), ``seed`` (B whole numbers), and what the degradation takes.
            Without ``seed``, in another program's loop, the numbers go on from the default generators as they are.
        degradation: The degradation, on ``device``.
        scale: Super-resolution factor.
        gt_size: Side of the HR patches that are cut out, in pixels; None for the whole images.
        device: Where to compute.

    Returns:
        LR images, B x 3 x h x w, of whole 256ths as a file has them, and HR images, B x 3 x sh x sw.
    """
    tensors = {name: value.to(device, non_blocking=True) for name, value in batch.items() if torch.is_tensor(value)}
    seeds, gts, lqs = batch.get('seed'), [], []
    with ExitStack() as stack:
        if seeds is not None:
            stack.enter_context(preserved_random_state())
            stack.enter_context(torch.random.fork_rng([device] if device.type == 'cuda' else []))
        for number in range(len(batch['gt'])):
            if seeds is not None:
                seed_everything(int(seeds[number]))
            sample = {name: value[number : number + 1] for name, value in tensors.items()}
            height, width = (side // scale * scale for side in sample['gt'].shape[-2:])
            gt = sample['gt'][..., :height, :width]
            lq = (degradation(gt, scale, sample) * 255).round().clamp(0, 255) / 255
            if gt_size is not None:
                gt, lq = paired_random_crop(gt, lq, gt_size, scale)
            gts.append(gt)
            lqs.append(lq)
    return torch.cat(lqs), torch.cat(gts)


def build_degradation(opt: Mapping[str, Any] | None) -> Degradation:
    """Build it from its options: ``type``, and what its class takes; bicubic if there are none.

    Raises:
        OptionError: If an argument is out of its range.
    """
    if opt is None:
        return Bicubic()
    with blamed_on('degradation'):
        return DEGRADATION_REGISTRY.get(opt['type'])(**{name: value for name, value in opt.items() if name != 'type'})
