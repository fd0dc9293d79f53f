"""Upscaling images of any form with a network; tiles and self-ensemble are in ``mipkd_sr.evaluation.inference``."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from mipkd_sr.data.pairs import IMAGE_SUFFIXES, decode_file
from mipkd_sr.evaluation.inference import Network
from mipkd_sr.imresize import imresize
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.runtime.files import atomic_write


def find_images(paths: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The images that ``paths`` are or, as folders, hold, and the file in ``out`` that each becomes.

    Raises:
        OptionError: If there is none, two would become the same file, or ``out`` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise OptionError('--out', f'{out} is not a folder; give one.')
    found: dict[Path, Path] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif not path.is_file():
            raise OptionError('', f'there is no {path}; give images, or folders of them.')
        for file in files:
            target = out / f'{file.stem}.png'
            if target in found:
                raise OptionError('', f'{found[target]} and {file} would both become {target}; give them apart.')
            found[target] = file
    if not found:
        raise OptionError('', f'there is no image in {", ".join(map(str, paths))}; give images, or folders of them.')
    return {file: target for target, file in found.items()}


def read_any(file: Path) -> np.ndarray:
    """Read an image as it is: H x W (x 3 or 4, BGR and alpha), 8 or 16 bits; a photograph is turned upright.

    Raises:
        RunError: If it cannot be read.
    """
    as_it_is = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # these two let OpenCV turn it as its EXIF data says
    image = decode_file(file, as_it_is if file.suffix.lower() in ('.jpg', '.jpeg') else cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise RunError(f'{file} cannot be read as an image of 8 or 16 bits; remove it or replace it.')
    return image


@torch.no_grad()
def upscale(net: Network, image: np.ndarray, device: torch.device) -> np.ndarray:
    """Upscale an image of any form; the form stays.

    Args:
        net: The network.
        image: H x W (grey), H x W x 3 (BGR) or H x W x 4 (with alpha, which is resized bicubically), 8 or 16 bits.
        device: Where the network is.

    Returns:
        sH x sW (x C), of the same type.

    Raises:
        RunError: If the output is not finite.
    """
    top = float(np.iinfo(image.dtype).max)
    planes = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None] / top
    colour = planes[:, :3].flip(1) if planes.shape[1] >= 3 else planes[:, :1].expand(-1, 3, -1, -1)
    sr = net(colour.to(device)).float().cpu()
    if not torch.isfinite(sr).all():
        raise RunError('the output is not finite: the weights have diverged; no image was written.')
    parts = [sr.flip(1) if planes.shape[1] >= 3 else sr.mean(1, keepdim=True)]
    if planes.shape[1] in (2, 4):
        parts.append(imresize(planes[:, -1:], sr.shape[-1] // planes.shape[-1]))
    whole = torch.cat(parts, 1)[0].clamp(0, 1).mul(top).round().permute(1, 2, 0).numpy()
    return whole.astype(image.dtype).reshape(*whole.shape[:2], *image.shape[2:])


def upscale_file(net: Network, file: Path, target: Path, device: torch.device) -> None:
    """Upscale the image in ``file`` and write it to ``target``, a .png file.

    Raises:
        RunError: If it cannot be read, or the output is not finite.
        OSError: If it cannot be written.
    """
    content = cv2.imencode('.png', upscale(net, read_any(file), device))[1]
    with atomic_write(target) as part:
        part.write_bytes(content.tobytes())
