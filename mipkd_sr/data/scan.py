"""Checks a data set's files before a run, so that none fails days later.

Names and sizes must match, and training must read every file without loss. Each is read once, as training reads it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils import get_root_logger

from mipkd_sr.data.images import decode
from mipkd_sr.data.pairing import files_in, listed_files, pair_files
from mipkd_sr.metrics import least_side
from mipkd_sr.runtime.errors import OptionError, sentence

REFUSED = {
    'transparent': 'has an alpha channel, which would be ignored',
    '16-bit': 'has 16 bits a value, which would be cut to 8',
    'foreign': 'has neither RGB nor grey values, which programs turn into RGB in ways of their own',
    'turned': 'is turned by its EXIF data, which not every program does',
}
"""Forms that would be read with loss, and the loss."""
NOTED = {'grey': 'three equal channels', 'palette': 'their colours'}
"""Forms that are read without loss, and as what."""


class ImageInfo(NamedTuple):
    """What an image is: size in pixels, and form ('colour', or a key of ``REFUSED`` or ``NOTED``)."""

    height: int
    width: int
    form: str


def image_info(file: Path) -> ImageInfo:
    """Read an image (or a NumPy array's header) as training does."""
    if file.suffix == '.npy':
        return _array_info(file)
    try:
        picture = decode(file.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or sentence(error).rstrip('.')) from None
    return ImageInfo(picture.pixels.shape[0], picture.pixels.shape[1], picture.form)


def _array_info(file: Path) -> ImageInfo:
    try:
        array = np.load(file, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise ValueError('it is not a whole array') from None
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError('it is not H x W x 3 bytes')
    return ImageInfo(array.shape[0], array.shape[1], 'colour')


def scan(opt: Mapping[str, Any], key: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Look at every file of a data set of image pairs, or of LR images alone; an OptionError names all that cannot be
    used.

    ``opt``, which stands at ``key``, has ``phase`` and ``scale`` as well. ``metrics`` are the options of those that its
    images are to be measured with.
    """
    pairs = _pairs(opt, key)
    files = list(dict.fromkeys(file for pair in pairs for file in reversed(pair) if file is not None))
    with ThreadPoolExecutor() as pool:
        looks = dict(zip(files, pool.map(_look, files), strict=True))
    infos = {file: info for file, info in looks.items() if isinstance(info, ImageInfo)}
    _refuse({file: reason for file, reason in looks.items() if isinstance(reason, str)}, key)
    problems = {gt: _size_problem(gt, lq, infos, opt) for lq, gt in pairs if gt is not None and lq is not None}
    if wrong := [gt for gt, problem in problems.items() if problem]:
        raise OptionError(key, f'{problems[wrong[0]]}{_as_well(wrong)}; mipkd prepare makes pairs that match.')
    side = opt.get('gt_size') or 0
    for lq, gt in pairs:
        file, least = (lq, side // opt['scale']) if gt is None else (gt, side)
        if opt['phase'] == 'train' and file is not None and min(infos[file][:2]) < least and 'kernel_list' not in opt:
            size = f'{infos[file].height} x {infos[file].width}'
            raise OptionError(f'{key}:gt_size', f'is {side}, but {file} is {size} pixels; use smaller patches.')
        if gt is not None and lq is not None:
            _check_measurable(gt, infos[lq], opt['scale'], metrics)
    for form, read_as in NOTED.items():
        if noted := [file for file, info in infos.items() if info.form == form]:
            get_root_logger().info(f'{key}: {len(noted)} {form} image(s), read as {read_as}, such as {noted[0]}')


def _look(file: Path) -> ImageInfo | str:
    """What an image is; or why it cannot be used, and what to do."""
    try:
        info = image_info(file)
    except ValueError as error:
        return f'cannot be used: {error}; replace it, or remove it and its counterpart'
    if info.form in REFUSED:
        return f'{REFUSED[info.form]}; mipkd prepare saves it as 8-bit colour'
    return info


def _refuse(reasons: Mapping[Path, str], key: str) -> None:
    """Raise an OptionError if there are files that cannot be used: with all of them, by the reason."""
    files: dict[str, list[Path]] = {}
    for file, reason in reasons.items():
        files.setdefault(reason, []).append(file)
    if files:
        told = [f'{those[0]} {reason}{_as_well(those)}' for reason, those in files.items()]
        raise OptionError(key, f'{len(reasons)} files: {". ".join(told)}.' if len(reasons) > 1 else f'{told[0]}.')


def _as_well(files: Sequence[Path]) -> str:
    """The names of all but the first of ``files``, to follow a sentence about the first."""
    return f' (so for {", ".join(f"{file.parent.name}/{file.name}" for file in files[1:])})' if len(files) > 1 else ''


def _pairs(opt: Mapping[str, Any], key: str) -> Sequence[tuple[Path | None, Path | None]]:
    """LR and HR files, matched by name; None where a set has images of one kind alone."""
    if opt.get('dataroot_lq') is None:
        listed = next((name for name in ('meta_info', 'meta_info_file') if opt.get(name)), 'meta_info_file')
        gts = listed_files(Path(opt['dataroot_gt']), opt.get(listed), key, listed)
        return [(None, gt) for gt in gts]
    if opt.get('dataroot_gt') is None:
        return [(file, None) for file in files_in(Path(opt['dataroot_lq']), f'{key}:dataroot_lq')]
    roots = Path(opt['dataroot_lq']), Path(opt['dataroot_gt'])
    return pair_files(*roots, opt['filename_tmpl'], opt.get('meta_info_file'), key)


def _size_problem(gt: Path, lq: Path, infos: Mapping[Path, ImageInfo], opt: Mapping[str, Any]) -> str:
    """What is wrong with the sizes of a pair, HR taken without the rows and columns that the scale does not divide."""
    hr, lr, scale = infos[gt], infos[lq], opt['scale']
    if (hr.height // scale, hr.width // scale) == (lr.height, lr.width):
        return ''
    return (
        f'{gt} is {hr.height} x {hr.width} pixels and {lq} {lr.height} x {lr.width}, '
        f'but at scale {scale} it must be {lr.height * scale} x {lr.width * scale}'
    )


def _check_measurable(gt: Path, lr: ImageInfo, scale: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that an image, without what the scale does not divide, is large enough for each metric."""
    height, width = lr.height * scale, lr.width * scale
    for name, metric in metrics.items():
        if min(height, width) < (side := least_side(metric)):
            border = metric.get('crop_border', 0)
            raise OptionError(
                f'val:metrics:{name}',
                f'needs images of at least {side} x {side} pixels (crop_border is {border}), but {gt} is '
                f'{height} x {width}; take it out of the set, or crop less.',
            )
