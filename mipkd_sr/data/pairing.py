"""Which LR file belongs to which HR file: for the check before a run, and for every data set of pairs."""

import re
from collections.abc import Sequence
from pathlib import Path

from mipkd_sr.runtime.errors import OptionError

SHAPE = re.compile(r' \([\d, ]+\)$')
"""In a list of names, BasicSR's note of an image's shape, behind its name."""
OF_WINDOWS = ('thumbs.db', 'desktop.ini')
"""What Windows puts into folders of images."""


def files_in(folder: Path, key: str) -> list[Path]:
    """The files of a data set's folder, by name."""
    if not folder.is_dir():
        raise OptionError(key, f'{folder} is not a folder.')
    files = sorted(
        file
        for file in folder.iterdir()
        if not file.is_dir() and not file.name.startswith('.') and file.name.lower() not in OF_WINDOWS
    )
    for file in files:
        if not file.exists():
            raise OptionError(key, f'{file} links to nothing; put its image there, or remove the link.')
    if not files:
        raise OptionError(key, f'{folder} holds no image.')
    return files


def pair_files(
    lq_root: Path, gt_root: Path, template: str = '{}', names_file: str | None = None, key: str = 'datasets'
) -> list[tuple[Path, Path]]:
    """LR and HR files, matched by name, whatever their endings, in the order of the HR names.

    ``template`` makes an LR name of an HR name, without their endings. ``names_file`` is a text file with an HR name a
    line, BasicSR's ``meta_info_file``; None for all in ``gt_root``. An image without a counterpart, or with two, is
    an error about the data set at ``key``.
    """
    gts = listed_files(gt_root, names_file, key)
    by_stem: dict[str, list[Path]] = {}
    for file in files_in(lq_root, f'{key}:dataroot_lq'):
        by_stem.setdefault(file.stem, []).append(file)
    pairs, alone = [], []
    for gt in gts:
        named_alike = by_stem.get(template.format(gt.stem), [])
        lqs = [file for file in named_alike if file.suffix == gt.suffix] or named_alike
        if len(lqs) > 1:
            raise OptionError(f'{key}:dataroot_lq', f'{lqs[0]} and {lqs[1]} could both belong to {gt}; remove one.')
        if lqs:
            pairs.append((lqs[0], gt))
        else:
            alone.append(gt)
    if alone:
        lq = lq_root / f'{template.format(alone[0].stem)}{alone[0].suffix}'
        raise OptionError(
            f'{key}:dataroot_lq',
            f'there is no {lq}, with whatever ending, the LR image of {alone[0]}{and_more(alone)}; '
            f"filename_tmpl, '{template}', makes its name.",
        )
    surplus = [] if names_file else sorted(set(files_in(lq_root, key)) - {lq for lq, _ in pairs})
    if surplus:
        raise OptionError(
            f'{key}:dataroot_gt', f'there is no HR image of {surplus[0]}{and_more(surplus)}; add it, or remove this.'
        )
    return pairs


def listed_files(gt_root: Path, names_file: str | None, key: str, option: str = 'meta_info_file') -> list[Path]:
    """The HR files of a data set: those that a list names, which ``option`` gives, or all of the folder."""
    if not names_file:
        return files_in(gt_root, f'{key}:dataroot_gt')
    key = f'{key}:{option}'
    try:
        lines = Path(names_file).read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError):
        raise OptionError(key, f'{names_file} is no text file in UTF-8.') from None
    gts = [gt_root / SHAPE.sub('', line.strip()) for line in lines if line.strip()]
    for gt in gts:
        if not gt.is_file():
            raise OptionError(key, f'names {gt.name}, but there is no {gt}.')
    if not gts:
        raise OptionError(key, f'{names_file} names no image.')
    return gts


def and_more(files: Sequence[Path]) -> str:
    """The names of all but the first of ``files``, to follow the first."""
    return f' (nor of {", ".join(file.name for file in files[1:])})' if len(files) > 1 else ''
