"""A teacher's outputs for prepared images, stored beside the photographs: a training set for students without it."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipkd_sr.data.images import read_image, write_image
from mipkd_sr.deploy.upscaling import upscale
from mipkd_sr.evaluation.inference import Network
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import remove_parts

RECORD = 'labelled_x{}.jsonl'
"""In the output folder, for each scale: what makes the labels, and then a line for each image that is done."""

PROBE = 64
"""Side of the image, in pixels, with which a teacher is tried."""


def label(
    net: Network, images: Path, out: Path, scale: int, device: torch.device, made_by: Mapping[str, object]
) -> tuple[int, Iterator[bool]]:
    """Write ``out``/HR_xSCALE and ``out``/LR_xSCALE: each pair as NAME, and once more, labelled, as NAME_teacher.

    What is labelled already, of the same image and by the same teacher, is compared with its checksum, and stays.

    Args:
        net: The teacher, in evaluation mode, as it is to be run.
        images: A folder that ``mipkd prepare`` has made, with HR and LR_xSCALE.
        out: Where to write.
        scale: The teacher's scale.
        device: Where the teacher is.
        made_by: What makes labels differ: the teacher, tiles, and so on.

    Returns:
        How many images there are, and, as the work is done, for each whether it was labelled now.

    Raises:
        OptionError: If there are no such images, or ``out`` holds something else, or the teacher is of another scale.
        RunError: If a label is not finite, or comes back from the disk as another.
    """
    files = sorted(file for ending in ('npy', 'png') for file in (images / f'LR_x{scale}').glob(f'*.{ending}'))
    if not files:
        where = f'{images / f"LR_x{scale}"} holds no image'
        raise OptionError('', f'{where}; give a folder that mipkd prepare has made, with --scale {scale}.')
    if absent := [file for file in files if not (images / 'HR' / file.name).is_file()]:
        raise OptionError('', f'{images / "HR" / absent[0].name} is missing; prepare the photographs again.')
    if (found := _scale_of(net, device)) != scale:
        raise OptionError('--scale', f'is {scale}, but the teacher is for x{found}; give that, or another.')
    done = _read_record(out, scale, made_by)
    if gone := sorted(done.keys() - {file.name for file in files}):
        raise OptionError('--out', f'{out} has a label for {gone[0]}, which is not in {images}; give another folder.')
    return len(files), _label_each(net, files, out, scale, device, done)


@torch.no_grad()
def _scale_of(net: Network, device: torch.device) -> int:
    return net(torch.zeros(1, 3, PROBE, PROBE, device=device)).shape[-1] // PROBE


def _label_each(
    net: Network, files: list[Path], out: Path, scale: int, device: torch.device, done: Mapping[str, Any]
) -> Iterator[bool]:
    hr, lr = out / f'HR_x{scale}', out / f'LR_x{scale}'
    for folder in (hr, lr):
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
    with (out / RECORD.format(scale)).open('a', encoding='utf-8') as record:
        for file in files:
            target = hr / f'{file.stem}_teacher{file.suffix}'
            entry = {'name': file.name, 'image': _checksum(file), 'label': _checksum(target)}
            if done.get(file.name) == entry:
                yield False
                continue
            image = np.load(file, allow_pickle=False) if file.suffix == '.npy' else read_image(file)
            output = upscale(net, image[..., ::-1], device)[..., ::-1]  # stored as BGR
            _link(file, lr / file.name)
            _link(file, lr / target.name)
            _link(file.parents[1] / 'HR' / file.name, hr / file.name)
            write_image(target, np.ascontiguousarray(output))
            record.write(json.dumps({**entry, 'label': _checksum(target)}) + '\n')
            record.flush()
            yield True


def _read_record(out: Path, scale: int, made_by: Mapping[str, object]) -> dict[str, Any]:
    """What is labelled already, by name; the record is begun where there is none.

    Raises:
        OptionError: If ``out`` holds something else, or labels that are made otherwise.
    """
    record = out / RECORD.format(scale)
    if not record.is_file():
        names = {file.name for file in out.glob('*')}
        other_scales = any(out.glob(RECORD.format('*')))
        if out.is_file() or (names and not other_scales) or names & {f'HR_x{scale}', f'LR_x{scale}'}:
            raise OptionError('--out', f'{out} holds files that this command has not made; give another folder.')
        out.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(made_by) + '\n', encoding='utf-8')
        return {}
    text = record.read_text(encoding='utf-8', errors='replace')
    try:
        first, *lines = [json.loads(line) for line in text.split('\n')[:-1]]
        done = {entry['name']: entry for entry in lines}
    except (ValueError, TypeError, LookupError):
        raise OptionError('--out', f'{record} is damaged; give another folder.') from None
    if first != made_by:
        raise OptionError('--out', f'{out} was labelled otherwise, by {first}; give another folder.')
    record.write_text(text[: text.rfind('\n') + 1], encoding='utf-8')  # without a line that was cut short
    return done


def _checksum(file: Path) -> int:
    return zlib.crc32(file.read_bytes()) if file.is_file() else -1


def _link(source: Path, target: Path) -> None:
    """The same file under another name, without a copy where the disk allows it."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
