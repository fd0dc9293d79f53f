"""Making pairs of a folder of photographs, on all cores, going on where it was interrupted."""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mipkd_sr.data.pairs import IMAGE_SUFFIXES, check_image, file_checksum, read_image, write_image, write_pairs
from mipkd_sr.runtime.errors import OptionError, RunError, sentence
from mipkd_sr.runtime.files import remove_parts, written_whole

RECORD = 'prepared.jsonl'
"""In the output folder: the settings, and then a line for each photograph that is done."""


@dataclass(frozen=True)
class Settings:
    """How pairs are made; see ``write_pairs``."""

    scales: list[int]
    tile: int | None
    store: str


@dataclass(frozen=True)
class Preparation:
    """What there is to do, as ``plan_preparation`` finds it.

    Attributes:
        out: Folder for HR, LR_x2, ...
        settings: How pairs are made.
        waiting: The photographs to do, by name.
        pairs: Pairs that are there already.
        verify: Whether what is there is compared, and nothing written.
    """

    out: Path
    settings: Settings
    waiting: dict[str, Path]
    pairs: int
    verify: bool


def find_photographs(folders: Sequence[Path]) -> dict[str, Path]:
    """The photographs by the name that they get: their own, after their folder's if there are several folders.

    Raises:
        OptionError: If there is none or two would have the same name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise OptionError('', f'{folder} is not a folder; give the folders of the photographs.')
        label = folder.parent.name if folder.name == 'HR' else folder.name
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise OptionError('', f'{folder} holds no image; give the folders of the photographs.')
        for file in files:
            name = file.stem if len(folders) == 1 else f'{label}_{file.stem}'
            if name in found:
                raise OptionError('', f'{found[name]} and {file} would have the same name, {name}; rename one.')
            found[name] = file
    return found


def plan_preparation(folders: Sequence[Path], out: Path, settings: Settings, verify: bool = False) -> Preparation:
    """Look what has to be done, and begin the record of what is.

    Raises:
        OptionError: If there is no photograph, or ``out`` holds something else or was prepared with other settings.
    """
    if settings.tile and any(settings.tile % scale for scale in settings.scales):
        raise OptionError('--tile', f'{settings.tile} cannot be divided by every scale; give a multiple of all.')
    photographs = find_photographs(folders)
    if verify and not (out / RECORD).exists():
        raise OptionError('--out', f'{out} holds nothing that was prepared with this command; give another folder.')
    done = _start_record(out, asdict(settings))
    if verify:
        return Preparation(out, settings, photographs, 0, verify)
    waiting = {name: file for name, file in photographs.items() if not _is_done(name, file, done)}
    pairs = sum(done[name]['pairs'] for name in photographs.keys() & done.keys())
    return Preparation(out, settings, waiting, pairs, verify)


def _start_record(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Start the record, or read it: what is done, by name."""
    record = out / RECORD
    if not record.exists() or not record.stat().st_size:  # a full disk may have left an empty one
        if out.exists() and any(file != record for file in out.iterdir()):
            raise OptionError('--out', f'{out} holds files that this command has not prepared; give another folder.')
        out.mkdir(parents=True, exist_ok=True)
        _write_record(record, [json.dumps(settings)])
        return {}
    for folder in filter(Path.is_dir, out.iterdir()):
        remove_parts(folder)
    done = {}
    lines = record.read_text(encoding='utf-8').split('\n')
    if json.loads(lines[0]) != settings:
        raise OptionError('--out', f'{out} was prepared with other settings, {lines[0]}; give another folder.')
    for line in lines[1:-1]:  # what follows the last line break was cut short
        entry = json.loads(line)
        done[entry['name']] = entry
    if lines[-1]:
        _write_record(record, lines[:-1])
    return done


def _write_record(record: Path, lines: Sequence[str]) -> None:
    """Write the record whole, or leave what was there."""
    with written_whole(record) as part:
        part.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _is_done(name: str, file: Path, done: dict[str, dict[str, Any]]) -> bool:
    """Whether a photograph has been prepared, and is still the same."""
    return name in done and done[name]['checksum'] == file_checksum(file)


def _prepare(task: tuple[str, Path, Preparation]) -> dict[str, Any]:
    """Prepare one photograph, or compare what is there with it; in a process of its own."""
    name, file, work = task
    torch.set_num_threads(1)
    settings, sink = work.settings, check_image if work.verify else write_image
    count = write_pairs([(name, read_image(file))], work.out, settings.scales, settings.tile, settings.store, sink)
    return {'name': name, 'checksum': file_checksum(file), 'pairs': count}


def prepare(work: Preparation, jobs: int) -> Iterator[int]:
    """Do the work; yields after each photograph the number of its pairs.

    Args:
        work: What there is to do.
        jobs: Processes.

    Raises:
        RunError: If a photograph cannot be read, or what is there is not what it gives.
        OSError: If a file cannot be written.
    """
    tasks = [(name, file, work) for name, file in work.waiting.items()]
    with ExitStack() as stack:
        record = stack.enter_context((work.out / RECORD).open('a', encoding='utf-8'))
        entries: Iterable[dict[str, Any]] = map(_prepare, tasks)
        if jobs > 1:  # not forked: this process has used torch's threads
            pool = ProcessPoolExecutor(jobs, mp_context=get_context('spawn'))
            stack.callback(pool.shutdown, cancel_futures=True)
            entries = pool.map(_prepare, tasks)
        try:
            for entry in entries:
                if not work.verify:
                    record.write(json.dumps(entry) + '\n')
                    record.flush()
                yield entry['pairs']
        except ValueError as error:
            raise RunError(sentence(error)) from None
