"""A look at a data set's files before a run: better now than in the third night.

Names and sizes must match, every file must be whole (PNG files have checksums, which are compared; of others the end is
looked for), and of a form that training reads without loss. Images of the usual formats are not decoded for that.
"""

import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from PIL import Image

from mipkd_sr.data.paired_patch_dataset import PairedPatchDataset
from mipkd_sr.metrics import least_side
from mipkd_sr.runtime.errors import OptionError

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
REFUSED = {
    'transparent': 'has an alpha channel, which would be ignored',
    '16-bit': 'has 16 bits a value, which would be cut to 8',
    'foreign': 'has neither RGB nor grey values, which programs turn into RGB in ways of their own',
    'turned': 'is turned by its EXIF data, which not every program does',
}
"""Forms that would be read with loss, and the loss."""
NOTED = {'grey': 'three equal channels', 'palette': 'their colours'}
"""Forms that are read without loss, and as what."""


RGB_OR_GREY = {'RGB', 'RGBA', 'L', 'LA', 'P', 'PA', '1'}
"""Pillow's names of the forms that can be read as RGB; and those with 16 bits begin with I or F."""
ORIENTATION, BITS, STRIPS, TILES = 274, 258, (273, 279), (324, 325)
"""Tags of EXIF and TIFF: how the image is turned, bits of each value, and where its parts are and how long."""

# Pillow warns of larger images and refuses those of twice as many pixels, which is what OpenCV reads at most.
Image.MAX_IMAGE_PIXELS = 2**29


class ImageInfo(NamedTuple):
    """What an image's header says: size in pixels, and form ('colour', or a key of ``REFUSED`` or ``NOTED``)."""

    height: int
    width: int
    form: str


def image_info(file: str | os.PathLike[str]) -> ImageInfo:
    """Read an image's header (or a NumPy array's), and see whether the file is whole.

    Raises:
        ValueError: If it is not an image, or not whole. The message names it.
    """
    file = Path(file)
    if file.suffix == '.npy':
        return _array_info(file)
    try:
        with Image.open(file) as image, file.open('rb') as stream:
            width, height = image.size
            depth = _check_png(stream) if image.format == 'PNG' else _depth(image)
            if image.format != 'PNG':
                _check_end(image, stream)
            exif = image.getexif() if image.format != 'PNG' or 'exif' in image.info else {}  # or the PNG is decoded
            form = 'turned' if exif.get(ORIENTATION, 1) != 1 else _form(image, depth)
    except (ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f'{file} cannot be used: {error}; replace it, or remove it and its counterpart') from None
    except Exception:  # what Pillow's decoders raise for a file that they do not understand
        reason = 'it is not an image, or not whole'
        raise ValueError(f'{file} cannot be used: {reason}; replace it, or remove it and its counterpart') from None
    return ImageInfo(height, width, form)


def _depth(image: Image.Image) -> int:
    """Bits a value; Pillow opens a TIFF file of 3 x 16 bits as if it had 3 x 8."""
    bits = getattr(image, 'tag_v2', {}).get(BITS, (8,))
    return 16 if image.mode.startswith(('I', 'F')) or max(np.atleast_1d(bits)) > 8 else 8


def _form(image: Image.Image, depth: int) -> str:
    if depth == 16:
        return '16-bit'
    if image.mode not in RGB_OR_GREY:
        return 'foreign'
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        return 'transparent'
    return {'L': 'grey', '1': 'grey', 'P': 'palette'}.get(image.mode, 'colour')


def _array_info(file: Path) -> ImageInfo:
    try:
        array = np.load(file, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise ValueError(f'{file} cannot be used: it is not a whole array; prepare it again') from None
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f'{file} cannot be used: it is not H x W x 3 bytes; prepare it again')
    return ImageInfo(array.shape[0], array.shape[1], 'colour')


def _check_png(stream: BinaryIO) -> int:
    """Compare the checksums of a PNG file's chunks; returns its bits a value.

    Raises:
        ValueError: If one is wrong, or the last chunk is not there.
    """
    depth = 8
    stream.seek(len(PNG_SIGNATURE))
    while True:
        head = stream.read(8)
        length, kind = int.from_bytes(head[:4], 'big'), head[4:]
        content, checksum = stream.read(length), stream.read(4)
        if len(head) < 8 or len(content) < length or len(checksum) < 4:
            raise ValueError('it is truncated')
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(checksum, 'big'):
            raise ValueError('its contents do not have their checksum')
        if kind == b'IHDR':
            depth = content[8]
        if kind == b'IEND':
            return depth


def _check_end(image: Image.Image, stream: BinaryIO) -> None:
    """See that a file that is no PNG is whole.

    Raises:
        ValueError: If it is not.
        OSError: The same, from Pillow.
    """
    if image.format == 'JPEG':  # its end may be followed by anything a camera adds
        if b'\xff\xd9' not in stream.read()[-(2**16) :]:
            raise ValueError('it is truncated')
    elif image.format == 'TIFF':
        tags = image.tag_v2  # type: ignore[attr-defined]
        ends = [
            a + b
            for starts, counts in (STRIPS, TILES)
            for a, b in zip(tags.get(starts, ()), tags.get(counts, ()), strict=False)
        ]
        if max(ends, default=0) > os.fstat(stream.fileno()).st_size:
            raise ValueError('it is truncated')
    else:
        image.load()


def scan(opt: Mapping[str, Any], key: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Look at every file of a data set of image pairs, or of LR images alone.

    Args:
        opt: The data set's options, with ``phase`` and ``scale``.
        key: Where they stand in the option file.
        metrics: Options of the metrics that its images are to be measured with, by name.

    Raises:
        OptionError: For the first file that cannot be used. The message names it.
    """
    pairs = _pairs(opt, key)
    files = [file for pair in pairs for file in pair if file is not None]
    with ThreadPoolExecutor() as pool:
        try:
            infos = dict(zip(files, pool.map(image_info, files), strict=True))
        except ValueError as error:
            pool.shutdown(cancel_futures=True)
            raise OptionError(key, f'{error}.') from None
    for file, info in infos.items():
        if info.form in REFUSED:
            raise OptionError(key, f'{file} {REFUSED[info.form]}; mipkd prepare saves it as 8-bit colour.')
    for gt, lq in pairs:
        if gt is not None:
            _check_sizes(gt, lq, infos, opt, key)
            _check_measurable(gt, infos[lq], opt['scale'], metrics)
    for form, read_as in NOTED.items():
        if noted := [file for file, info in infos.items() if info.form == form]:
            get_root_logger().info(f'{key}: {len(noted)} {form} image(s), read as {read_as}, such as {noted[0]}')


def _pairs(opt: Mapping[str, Any], key: str) -> list[tuple[Path | None, Path]]:
    """HR and LR files, matched by name."""
    lq_root = Path(opt['dataroot_lq'])
    if opt.get('dataroot_gt') is None:
        return [(None, file) for file in _images(lq_root, f'{key}:dataroot_lq')]
    gt_root = Path(opt['dataroot_gt'])
    if opt.get('meta_info_file'):
        try:
            lines = Path(opt['meta_info_file']).read_text(encoding='utf-8').splitlines()
        except (OSError, ValueError):
            raise OptionError(f'{key}:meta_info_file', f'{opt["meta_info_file"]} is no text file in UTF-8.') from None
        gts = [gt_root / line.split(' ')[0] for line in lines if line.strip()]
        for gt in gts:
            if not gt.is_file():
                raise OptionError(f'{key}:meta_info_file', f'names {gt.name}, but there is no {gt}.')
    else:
        gts = _images(gt_root, f'{key}:dataroot_gt')
    pairs: list[tuple[Path | None, Path]] = []
    for gt in gts:
        lq = lq_root / f'{opt["filename_tmpl"].format(gt.stem)}{gt.suffix}'
        if not lq.is_file():
            raise OptionError(f'{key}:dataroot_lq', f'there is no {lq}, the LR image of {gt}; see filename_tmpl.')
        pairs.append((gt, lq))
    if not opt.get('meta_info_file'):
        surplus = set(_images(lq_root, f'{key}:dataroot_lq')) - {lq for _, lq in pairs}
        if surplus:
            raise OptionError(f'{key}:dataroot_gt', f'there is no HR image of {min(surplus)}; add it, or remove this.')
    return pairs


def _images(folder: Path, key: str) -> list[Path]:
    if not folder.is_dir():
        raise OptionError(key, f'{folder} is not a folder.')
    files = sorted(file for file in folder.iterdir() if not file.is_dir() and not file.name.startswith('.'))
    for file in files:
        if not file.exists():
            raise OptionError(key, f'{file} links to nothing; put its image there, or remove the link.')
    if not files:
        raise OptionError(key, f'{folder} holds no image.')
    return files


def _check_sizes(gt: Path, lq: Path, infos: Mapping[Path, ImageInfo], opt: Mapping[str, Any], key: str) -> None:
    hr, lr, scale = infos[gt], infos[lq], opt['scale']
    size_hr, size_lr = (f'{info.height} x {info.width}' for info in (hr, lr))
    wanted = (lr.height * scale, lr.width * scale)
    fits = (hr.height, hr.width) == wanted
    if opt['phase'] != 'train' or issubclass(DATASET_REGISTRY.get(opt['type']), PairedPatchDataset):
        # these cut off the rows and columns of HR that the scale does not divide
        fits = (hr.height // scale, hr.width // scale) == (lr.height, lr.width)
    if not fits:
        raise OptionError(
            key,
            f'{gt} is {size_hr} pixels and {lq} {size_lr}, but at scale {scale} it must be {wanted[0]} x {wanted[1]}; '
            'mipkd prepare makes pairs that match.',
        )
    side = opt.get('gt_size') or 0
    if opt['phase'] == 'train' and min(hr.height, hr.width) < side:
        raise OptionError(f'{key}:gt_size', f'is {side}, but {gt} is {size_hr} pixels; use smaller patches.')


def _check_measurable(gt: Path, lr: ImageInfo, scale: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """What the scale does not divide is cut off before an image is measured."""
    height, width = lr.height * scale, lr.width * scale
    for name, metric in metrics.items():
        if min(height, width) < (side := least_side(metric)):
            border = metric.get('crop_border', 0)
            raise OptionError(
                f'val:metrics:{name}',
                f'needs images of at least {side} x {side} pixels (crop_border is {border}), but {gt} is '
                f'{height} x {width}; take it out of the set, or crop less.',
            )
