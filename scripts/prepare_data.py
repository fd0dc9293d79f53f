"""Make training or test pairs from folders of photographs: HR images, and LR images as MATLAB's bicubic imresize does.

    python scripts/prepare_data.py DIV2K_train_HR --out datasets/DIV2K_train --store npy
    python scripts/prepare_data.py Flickr2K/Flickr2K_HR --out datasets/Flickr2K --store npy
    python scripts/prepare_data.py PHOTOS [MORE_PHOTOS ...] --out datasets/mine --scale 2 --tile 192
    python scripts/prepare_data.py Set5/HR --out datasets/Set5

An interrupted run goes on where it stopped when it is started again. With --verify nothing is written: every file is
compared, bit for bit, with what the photographs give.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.data.pairs import IMAGE_SUFFIXES, STORES, check_image, file_checksum, read_image, write_image, write_pairs
from mipkd_sr.runtime.files import remove_parts

RECORD = 'prepared.jsonl'
"""In the output folder: the settings, and then a line for each photograph that is done."""


def find_photographs(folders: Sequence[Path]) -> dict[str, Path]:
    """The photographs by the name that they get: their own, after their folder's if there are several folders.

    Raises:
        SystemExit: With one sentence, if there is none or two would have the same name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            sys.exit(f'error: {folder} is not a folder')
        label = folder.parent.name if folder.name == 'HR' else folder.name
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            sys.exit(f'error: {folder} holds no image')
        for file in files:
            name = file.stem if len(folders) == 1 else f'{label}_{file.stem}'
            if name in found:
                sys.exit(f'error: {found[name]} and {file} would have the same name, {name}; rename one')
            found[name] = file
    return found


def start_record(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Start the record, or read it: what is done, by name.

    Raises:
        SystemExit: With one sentence, if the folder holds something else, or was prepared with other settings.
    """
    record = out / RECORD
    if not record.exists():
        if out.exists() and any(out.iterdir()):
            sys.exit(f'error: {out} holds files that this script has not prepared; give another --out')
        out.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(settings) + '\n', encoding='utf-8')
        return {}
    for folder in filter(Path.is_dir, out.iterdir()):
        remove_parts(folder)
    done = {}
    lines = record.read_text(encoding='utf-8').split('\n')
    if json.loads(lines[0]) != settings:
        sys.exit(f'error: {out} was prepared with other settings, {lines[0]}; give another --out')
    for line in lines[1:-1]:  # what follows the last line break was cut short
        entry = json.loads(line)
        done[entry['name']] = entry
    if lines[-1]:
        record.write_text('\n'.join(lines[:-1]) + '\n', encoding='utf-8')
    return done


def prepare(task: tuple[str, Path, Path, dict[str, Any], bool]) -> dict[str, Any]:
    """Prepare one photograph, or compare what is there with it; in a process of its own."""
    name, file, out, settings, verify = task
    torch.set_num_threads(1)
    sink = check_image if verify else write_image
    count = write_pairs([(name, read_image(file))], out, settings['scales'], settings['tile'], settings['store'], sink)
    return {'name': name, 'checksum': file_checksum(file), 'pairs': count}


def is_done(name: str, file: Path, done: dict[str, dict[str, Any]]) -> bool:
    """Whether a photograph has been prepared, and is still the same."""
    return name in done and done[name]['checksum'] == file_checksum(file)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folders', nargs='+', type=Path, help='folders of photographs')
    parser.add_argument('--out', type=Path, required=True, help='folder for HR, LR_x2, ...')
    parser.add_argument('--scale', type=int, nargs='+', default=[2, 3, 4], choices=[2, 3, 4])
    parser.add_argument('--tile', type=int, help='side of sub-images, divided by every scale; default: whole images')
    parser.add_argument('--store', choices=STORES, default='png', help='npy for PairedPatchDataset; default: png')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='processes; default: one a core')
    parser.add_argument('--verify', action='store_true', help='compare what is there, write nothing')
    args = parser.parse_args(argv)
    if args.tile and any(args.tile % scale for scale in args.scale):
        sys.exit(f'error: --tile {args.tile} cannot be divided by every scale')
    settings = {'scales': args.scale, 'tile': args.tile, 'store': args.store}
    photographs = find_photographs(args.folders)
    if args.verify and not (args.out / RECORD).exists():
        sys.exit(f'error: {args.out} holds nothing that this script has prepared')
    done = start_record(args.out, settings)
    tasks = [
        (name, file, args.out, settings, args.verify)
        for name, file in photographs.items()
        if args.verify or not is_done(name, file, done)
    ]
    pairs = 0 if args.verify else sum(done[name]['pairs'] for name in photographs.keys() & done.keys())
    with ExitStack() as stack:
        record = stack.enter_context((args.out / RECORD).open('a', encoding='utf-8'))
        entries: Iterable[dict[str, Any]] = map(prepare, tasks)
        if args.jobs > 1:  # not forked: this process has used torch's threads
            pool = ProcessPoolExecutor(args.jobs, mp_context=get_context('spawn'))
            stack.callback(pool.shutdown, cancel_futures=True)
            entries = pool.map(prepare, tasks)
        try:
            for entry in tqdm(entries, total=len(tasks), unit='image', desc=args.out.name):
                pairs += entry['pairs']
                if not args.verify:
                    record.write(json.dumps(entry) + '\n')
                    record.flush()
        except (OSError, ValueError) as error:
            sys.exit(f'error: {error}')
    print(f'{pairs} pairs in {args.out}{": every file is what the photographs give" if args.verify else ""}')


if __name__ == '__main__':
    main()
