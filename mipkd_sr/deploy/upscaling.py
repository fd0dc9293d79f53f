"""Upscaling images of any form with a network; tiles and self-ensemble are in ``mipkd_sr.evaluation.inference``."""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipkd_sr.data.images import Picture, decode, encode, images_in, read_text, unreadable
from mipkd_sr.deploy.shapes import channels_of
from mipkd_sr.evaluation.inference import Network, prepare_network
from mipkd_sr.imresize import imresize
from mipkd_sr.runtime.errors import OptionError, RunError, is_out_of_memory
from mipkd_sr.runtime.files import atomic_write

MARGIN = 16
"""Pixels of an image's mirror image that are put around it, more than the shipped students see, and cut off again. For
a network itself what is beyond an edge is black: the edges of flat images come out up to 30 levels off."""
RECORD = 'mipkd_sr'
"""Name of the text in a PNG file that says what made it."""
CLOSE = 59.0
"""PSNR, in dB, of a network in bf16 to itself in single precision, on noise, from which on it may be run so. The
shipped students have 56 to 58 (fast) and 60 to 61 (good), and at least 64 and 67 on images of Set5, Set14 and B100."""


@torch.no_grad()
def upscale(net: Network, image: np.ndarray, device: torch.device, channels: int = 3) -> np.ndarray:
    """Upscale an image of any form; the form stays.

    Args:
        net: The network, in evaluation mode.
        image: H x W (grey), H x W x 2 (grey and alpha), x 3 (RGB) or x 4 (RGB and alpha), 8 or 16 bits. Alpha is
            resized bicubically; the colours that it hides are replaced by those around them before.
        device: Where the network is.
        channels: Of the network's input. One of one channel is given each colour by itself.

    Returns:
        sH x sW (x C), of the same type.

    Raises:
        RunError: If the output is not finite.
    """
    top = float(np.iinfo(image.dtype).max)
    planes = mirrored(torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None] / top)
    alpha = planes[:, -1:] if planes.shape[1] in (2, 4) else None
    colour = planes if alpha is None else spread(planes[:, :-1], alpha)
    sr = run_planes(net, colour, device, channels)
    scale = sr.shape[-1] // planes.shape[-1]
    whole = sr if alpha is None else torch.cat([sr, imresize(alpha, scale)], 1)
    result = within(whole, scale)[0].clamp(0, 1).mul(top).round().permute(1, 2, 0).numpy()
    return result.astype(image.dtype).reshape(*result.shape[:2], *image.shape[2:])


def mirrored(planes: Tensor) -> Tensor:
    """An image, 1 x C x H x W on the CPU, with its mirror image around it."""
    around = ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
    return torch.from_numpy(np.pad(planes.numpy(), around, 'symmetric'))


def within(sr: Tensor, scale: int) -> Tensor:
    """The upscaled image without what ``mirrored`` put around it."""
    margin = MARGIN * scale
    return sr[..., margin:-margin, margin:-margin]


@torch.no_grad()
def run_planes(net: Network, colour: Tensor, device: torch.device, channels: int) -> Tensor:
    """Run a network of ``channels`` on an image 1 x C x H x W, RGB or grey, in [0, 1]; on the CPU.

    Raises:
        RunError: If the output is not finite.
    """
    lq = colour.transpose(0, 1) if channels == 1 else colour.expand(-1, channels, -1, -1)
    sr = net(lq.to(device)).float().cpu()
    if not torch.isfinite(sr).all():
        raise RunError('the output is not finite: the weights have diverged; no image was written.')
    return sr.transpose(0, 1) if channels == 1 else sr if colour.shape[1] > 1 else sr.mean(1, keepdim=True)


def spread(colour: Tensor, alpha: Tensor) -> Tensor:
    """Colours (B x C x H x W), those where ``alpha`` (B x 1 x H x W) is 0 replaced by the mean of visible ones near.

    What cannot be seen is often black, and would darken the rim of what can when it is upscaled.
    """
    if min(colour.shape[-2:]) < 2 or alpha.min() > 0 or alpha.max() == 0:
        return colour
    half = partial(F.avg_pool2d, kernel_size=2, ceil_mode=True)
    weight = half(alpha)
    coarse = spread(half(colour * alpha) / weight.clamp(min=1e-6), weight)
    return torch.where(
        alpha > 0, colour, F.interpolate(coarse, scale_factor=2)[..., : colour.shape[2], : colour.shape[3]]
    )


@torch.no_grad()
def is_close_in_bf16(net: nn.Module) -> bool:
    """Whether a network in bf16 is close to itself in single precision on noise, which is harder than photographs."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, channels_of(net), 96, 96, generator=generator).to(next(net.parameters(), torch.empty(0)))
    single, half = (prepare_network(net, bf16=bf16)(noise).clamp(0, 1).double() for bf16 in (False, True))
    return bool(-10 * (half - single).square().mean().log10() >= CLOSE)


def has_fast_bf16() -> bool:
    """Whether this machine's processor multiplies in bf16."""
    features = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')  # PyTorch has no public name for it
    return any(getattr(torch.cpu, feature, lambda: False)() for feature in features)


def digest(net: nn.Module) -> str:
    """A digest of a network's weights."""
    total = hashlib.sha256()
    for name, value in net.state_dict().items():
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def find_images(paths: Sequence[Path], out: Path) -> tuple[dict[Path, Path], list[Path]]:
    """The images that ``paths`` are or, as folders, hold, the file in ``out`` that each becomes; and what is no image.

    That is NAME.png, or, where two have one name but for their ending, NAME.ENDING.png.

    Raises:
        OptionError: If there is none, two would become the same file, or ``out`` is no folder, or one of ``paths``.
    """
    if out.exists() and not out.is_dir():
        raise OptionError('--out', f'{out} is not a folder; give one.')
    files: list[Path] = []
    passed_over: list[Path] = []
    for path in paths:
        if not path.exists():
            raise OptionError('', f'there is no {path}; give images, or folders of them.')
        if path.is_dir() and out.exists() and path.samefile(out):
            raise OptionError('--out', f'{out} is where the images are; give another folder.')
        images, others = images_in(path) if path.is_dir() else ([path], [])
        files += images
        passed_over += others
    stems, found = Counter(file.stem for file in files), dict[Path, Path]()
    for file in files:
        target = out / f'{file.stem if stems[file.stem] == 1 else file.name}.png'
        if target in found:
            raise OptionError('', f'{found[target]} and {file} would both become {target}; give them apart.')
        found[target] = file
    if not found:
        raise OptionError('', f'there is no image in {", ".join(map(str, paths))}; give images, or folders of them.')
    return {file: target for target, file in found.items()}, passed_over


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        file: The image.
        failure: Why it was not upscaled; empty if it was.
        was_there: Whether it had been before.
        notes: What of it was not kept.
    """

    file: Path
    failure: str = ''
    was_there: bool = False
    notes: tuple[str, ...] = ()


def upscale_files(
    net: Network, targets: Mapping[Path, Path], device: torch.device, made_by: Mapping[str, object], channels: int = 3
) -> Iterator[Outcome]:
    """Upscale images to PNG files; one is read and one written while the network runs on a third.

    A file that is there stays. It counts as done if it says of itself that it was made of this image, ``made_by`` this.

    Args:
        net: The network, as it is to be run.
        targets: The file that each image becomes.
        device: Where the network is.
        made_by: What makes the results differ: the student, its scale, and so on.
        channels: Of the network's input.

    Raises:
        RunError: If the output is not finite.
        OSError: If a file cannot be written.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        files = iter(targets.items())
        following = next(files, None)
        reading = reader.submit(_read, *following, made_by) if following else None
        writing: Future[Outcome] | None = None
        try:
            while reading and following:
                (file, target), read = following, reading.result()
                following = next(files, None)
                reading = reader.submit(_read, *following, made_by) if following else None
                if isinstance(read, Outcome):
                    yield read
                    continue
                picture, text = read
                try:
                    sr = replace(picture, pixels=upscale(net, picture.pixels, device, channels))
                except RunError:
                    raise
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    yield Outcome(file, f'{file} needs more memory than there is; give --tile 512, or less.')
                    continue
                if writing:
                    yield writing.result()
                writing = writer.submit(_write, file, target, sr, text)
            if writing:
                yield writing.result()
        finally:
            reader.shutdown(cancel_futures=True)


def _read(file: Path, target: Path, made_by: Mapping[str, object]) -> tuple[Picture, str] | Outcome:
    """The image and what is to be written with it; or what becomes of it instead."""
    try:
        content = file.read_bytes()
        text = json.dumps({**made_by, 'image': zlib.crc32(content)})
        if target.exists():
            if read_text(target, RECORD) == text:
                return Outcome(file, was_there=True)
            why = 'made of another image, or by another student, or not by this command'
            return Outcome(file, f'{target} is there already, {why}; give another --out, or remove it.')
        return decode(content), text
    except (OSError, ValueError) as error:
        return Outcome(file, f'{unreadable(file, error)}.')


def _write(file: Path, target: Path, picture: Picture, text: str) -> Outcome:
    with atomic_write(target) as part:
        part.write_bytes(encode(picture, (RECORD, text)))
    return Outcome(file, notes=picture.notes)
