"""Makes pairs from a folder of photographs, on all cores. Started again, it goes on where it was interrupted."""

import json
import os
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from mipkd_sr.data.images import check_image, decode, images_in, to_bgr, unreadable, write_image
from mipkd_sr.data.pairs import tile_name, write_pairs
from mipkd_sr.runtime.errors import OptionError, RunError
from mipkd_sr.runtime.files import atomic_write, remove_parts, unused

RECORD = 'prepared.jsonl'
"""In the output folder: the settings, and then a line for each photograph that is done."""
MOST_JOBS = 256
MOST_PAIRS = 2**20
"""The most pairs that the record may name for one photograph."""
LEFT = 'left'
"""Folder in the output folder: it takes the pairs of photographs that have changed or are gone."""


@dataclass(frozen=True)
class Settings:
    """How pairs are made; see ``write_pairs``."""

    scales: list[int]
    tile: int | None
    store: str


@dataclass(frozen=True)
class Preparation:
    """What there is to do, as ``plan_preparation`` finds it."""

    out: Path  # folder for HR, LR_x2,
    settings: Settings  # how pairs are made
    waiting: dict[str, Path]  # the photographs to do, by name
    passed_over: list[Path]  # files that are no images by their endings
    pairs: int  # number of pairs that exist already
    moved: int  # number of pairs that were moved to ``LEFT``
    verify: bool  # whether to compare what is there, and write nothing


def find_photographs(folders: Sequence[Path]) -> tuple[dict[str, Path], list[Path]]:
    """The photographs by the name that they get, and all other files.

    The name is that of their file, after their folder's if there are several folders. If two names differ in the ending
    alone, the ending stays.
    """
    found: dict[str, Path] = {}
    passed_over: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise OptionError('', f'{folder} is not a folder; give the folders of the photographs.')
        label = folder.parent.name if folder.name == 'HR' else folder.name
        files, others = images_in(folder)
        passed_over += others
        if not files:
            raise OptionError('', f'{folder} holds no image; give the folders of the photographs.')
        stems = Counter(file.stem for file in files)
        for file in files:
            name = file.stem if stems[file.stem] == 1 else file.name
            name = name if len(folders) == 1 else f'{label}_{name}'
            if name in found:
                raise OptionError('', f'{found[name]} and {file} would have the same name, {name}; rename one.')
            found[name] = file
    return found, passed_over


def plan_preparation(folders: Sequence[Path], out: Path, settings: Settings, verify: bool = False) -> Preparation:
    """Find what there is to do, and begin the record of what is done."""
    if settings.tile and any(settings.tile % scale for scale in settings.scales):
        raise OptionError('--tile', f'{settings.tile} cannot be divided by every scale; give a multiple of all.')
    photographs, passed_over = find_photographs(folders)
    if verify:
        if not (out / RECORD).exists():
            raise OptionError('--out', f'{out} holds nothing that was prepared with this command; give another folder.')
        read_record(out, asdict(settings))
        return Preparation(out, settings, photographs, passed_over, 0, 0, verify)
    done = _start_record(out, asdict(settings))
    waiting = {name: file for name, file in photographs.items() if not _is_done(file, done.get(name), out, settings)}
    kept = {name: entry for name, entry in done.items() if name in photographs and name not in waiting}
    gone = [entry for name, entry in done.items() if name not in kept]
    if gone and not kept:
        raise OptionError(
            '--out',
            f"{out} was prepared from other photographs ('{gone[0]['name']}' is the first); give another folder, as "
            'each data set has its own.',
        )
    _archive(out, settings, gone)
    if gone:
        _write_record(out, asdict(settings), kept)
    pairs, moved = (sum(entry['pairs'] for entry in entries) for entries in (kept.values(), gone))
    return Preparation(out, settings, waiting, passed_over, pairs, moved, verify)


def _start_record(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Start the record, or read it and mend its end: what is done, by name."""
    record = out / RECORD
    if not record.exists() or not record.stat().st_size:  # a full disk may have left an empty one
        if out.exists() and (not out.is_dir() or any(file != record for file in out.iterdir())):
            raise OptionError('--out', f'{out} holds files that this command has not prepared; give another folder.')
        out.mkdir(parents=True, exist_ok=True)
        _write_record(out, settings, {})
        return {}
    for folder in filter(Path.is_dir, out.iterdir()):
        remove_parts(folder)
    done = read_record(out, settings)
    if not record.read_bytes().endswith(b'\n'):
        _write_record(out, settings, done)
    return done


def _write_record(out: Path, settings: dict[str, Any], done: Mapping[str, dict[str, Any]]) -> None:
    with atomic_write(out / RECORD) as part:
        part.write_text(''.join(json.dumps(line) + '\n' for line in (settings, *done.values())), encoding='utf-8')


def read_record(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the record says is done, by name; nothing is written."""
    lines = (out / RECORD).read_text(encoding='utf-8', errors='replace').split('\n')
    try:
        found = json.loads(lines[0])
        entries = [json.loads(line) for line in lines[1:-1]]  # what follows the last line break was cut short
        done = {str(entry['name']): {**entry, 'pairs': int(entry['pairs'])} for entry in entries}
        known = all(
            isinstance(entry['checksum'], int)
            and entry['name'] == Path(entry['name']).name  # or it would lead out of the folder
            and 0 <= entry['pairs'] <= MOST_PAIRS
            for entry in entries
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        known = False
    if not known:
        raise OptionError('--out', f'{out / RECORD} is damaged; give another folder, and prepare the photographs anew.')
    if found != settings:
        raise OptionError('--out', f'{out} was prepared with other settings, {lines[0]}; give another folder.')
    return done


def _folders(settings: Settings) -> list[str]:
    return ['HR', *(f'LR_x{scale}' for scale in settings.scales)]


def part_names(name: str, count: int, settings: Settings) -> list[str]:
    """The names of the files of a photograph that gives ``count`` pairs."""
    names = [name] if settings.tile is None else [tile_name(name, number) for number in range(count)]
    return [f'{part}.{settings.store}' for part in names]


def _archive(out: Path, settings: Settings, entries: Sequence[dict[str, Any]]) -> None:
    """Move pairs into the folder ``left``, so that the sets hold what the photographs of today give."""
    for entry in entries:
        for folder in _folders(settings):
            for file in part_names(entry['name'], entry['pairs'], settings):
                if (out / folder / file).exists():
                    (out / LEFT / folder).mkdir(parents=True, exist_ok=True)
                    (out / folder / file).replace(unused(out / LEFT / folder / file))


def _check_nothing_else(work: Preparation, expected: set[str]) -> None:
    """See that the sets hold no files but the ``expected`` ones."""
    for folder in _folders(work.settings):
        for file in sorted((work.out / folder).iterdir()):
            if file.name not in expected and not file.name.startswith('.'):
                raise RunError(f'{file} is of none of the photographs; remove it, or prepare them again.')


def _is_done(file: Path, entry: Mapping[str, Any] | None, out: Path, settings: Settings) -> bool:
    """Whether a photograph has been prepared, and it and its pairs are still there."""
    if entry is None:
        return False
    parts = part_names(entry['name'], entry['pairs'], settings)
    if not all((out / folder / part).is_file() for folder in _folders(settings) for part in parts):
        return False
    try:
        return entry['checksum'] == zlib.crc32(file.read_bytes())
    except OSError:  # which is said when it is read again
        return False


def _prepare(task: tuple[str, Path, Preparation]) -> dict[str, Any]:
    """Prepare one photograph, or compare what is there with it; in a process of its own.

    Returns:
        What the record says of it, and ``file`` and ``notes``; or ``file`` and ``failure``.
    """
    name, file, work = task
    torch.set_num_threads(1)
    settings, sink = work.settings, check_image if work.verify else write_image
    try:
        content = file.read_bytes()
        picture = decode(content)
    except (OSError, ValueError) as error:
        return {'file': file, 'failure': f'{unreadable(file, error)}.'}
    image, notes = to_bgr(picture.pixels), list(picture.notes)
    if min(image.shape[:2]) < max(settings.scales):
        size = f'{image.shape[0]} x {image.shape[1]}'
        return {'file': file, 'failure': f'{file} is {size} pixels, too few for x{max(settings.scales)}; remove it.'}
    notes += ['without its alpha channel'] if picture.pixels.ndim == 3 and picture.pixels.shape[2] in (2, 4) else []
    notes += ['cut to 8 bits a value'] if picture.pixels.dtype.itemsize > 1 else []
    count = write_pairs([(name, image)], work.out, settings.scales, settings.tile, settings.store, sink)
    notes += [] if count else ['smaller than a tile, and in no pair']
    return {'name': name, 'checksum': zlib.crc32(content), 'pairs': count, 'file': file, 'notes': notes}


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent process, and end when the parent ends, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def prepare(work: Preparation, jobs: int) -> Iterator[dict[str, Any]]:
    """Do the work, in ``jobs`` processes.

    Yields:
        For each photograph ``file``, and ``pairs``, their number, and ``notes``, what of it was not kept; or
        ``failure``, why there are none.

    Raises:
        RunError: If, where it is compared, something is different, or there is something that no photograph gives.
        OSError: If a file cannot be written.
    """
    tasks = [(name, file, work) for name, file in work.waiting.items()]
    with ExitStack() as stack:
        record = None if work.verify else stack.enter_context((work.out / RECORD).open('a', encoding='utf-8'))
        entries: Iterable[dict[str, Any]] = map(_prepare, tasks)
        if min(jobs, len(tasks)) > 1:  # not forked: this process has used torch's threads
            pool = ProcessPoolExecutor(min(jobs, len(tasks), MOST_JOBS), get_context('spawn'), _begin_worker)
            stack.callback(pool.shutdown, cancel_futures=True)
            entries = pool.map(_prepare, tasks)
        expected: set[str] = set()
        for entry in entries:
            if 'failure' not in entry:
                if record is not None:
                    record.write(json.dumps({key: entry[key] for key in ('name', 'checksum', 'pairs')}) + '\n')
                    record.flush()
                expected.update(part_names(entry['name'], entry['pairs'], work.settings))
            yield entry
        if work.verify:
            _check_nothing_else(work, expected)
