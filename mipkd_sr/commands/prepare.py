"""Make training or test pairs from photographs: HR images, and LR images as MATLAB's bicubic imresize does.

mipkd prepare DIV2K_train_HR --out datasets/DIV2K_train --store npy
mipkd prepare PHOTOS [MORE_PHOTOS ...] --out datasets/mine --scale 2 --tile 192
mipkd prepare Set5/HR --out datasets/Set5

An interrupted run goes on where it stopped when it is started again. With --verify nothing is written: every file is
compared, bit for bit, with what the photographs give.
"""

import argparse
import os
from pathlib import Path

from mipkd_sr.commands.command_line import at_least, report_failures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', type=Path, help='folders of photographs')
    parser.add_argument('--out', type=Path, required=True, help='folder for HR, LR_x2, ...')
    parser.add_argument('--scale', type=int, nargs='+', default=[2, 3, 4], choices=[2, 3, 4])
    parser.add_argument('--tile', type=at_least(1), help='side of sub-images, a multiple of every scale')
    parser.add_argument('--store', choices=['png', 'npy'], default='png', help='npy for PairedPatchDataset')
    parser.add_argument('--jobs', type=at_least(1), default=os.cpu_count(), help='processes; default: one a core')
    parser.add_argument('--verify', action='store_true', help='compare what is there, write nothing')


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.data.images import listing
    from mipkd_sr.data.preparing import LEFT, Settings, plan_preparation, prepare
    from mipkd_sr.runtime.long_work import told

    work = plan_preparation(args.folders, args.out, Settings(args.scale, args.tile, args.store), args.verify)
    if work.moved:
        left = args.out / LEFT
        print(f'{work.moved} pairs of photographs that have changed or are not here any more are now in {left}')
    done = list(told(prepare(work, args.jobs), len(work.waiting), args.out.name))
    failures = [entry['failure'] for entry in done if 'failure' in entry]
    pairs = work.pairs + sum(entry.get('pairs', 0) for entry in done)
    print(f'{pairs} pairs in {args.out}{": every file is what the photographs give" if args.verify else ""}')
    notes = [(note, entry['file']) for entry in done for note in entry.get('notes', ())]
    print(listing(notes + [('passed over, no image by its ending', file) for file in work.passed_over]), end='')
    return report_failures(failures)
