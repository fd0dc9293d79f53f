"""The command: ``python -m tests.fuzz --cases 5000 --seed 7``."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore', CUDA_VISIBLE_DEVICES='')

import mipkd_sr.register  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import cv2
import torch

from tests.fuzz.confine import landlock_version
from tests.fuzz.mutations import Case, make_case
from tests.fuzz.recipes import World, recipe_files, small_vgg
from tests.fuzz.running import Outcome, finish, start, wait_for_one

LONGEST = 120.0
"""Seconds after which a case has hung."""


def main(argv: Sequence[str] | None = None) -> int:
    """Try the cases; returns 1 if one failed, and 3 where a process cannot be confined."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=1, choices=[1, 2])
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    parser.add_argument('--of', default='', help='change recipes alone whose name has this in it: tables, study')
    parser.add_argument('--only', type=int, help='try this case alone, and print its file and what was said')
    args = parser.parse_args(argv)
    if landlock_version() < 1:
        print('the kernel has no Landlock: a hostile case could not be kept in its folder', file=sys.stderr)
        return 3
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    small_vgg()
    with tempfile.TemporaryDirectory(prefix='fuzz') as folder:
        recipes = {name: opt for name, opt in make_recipes(Path(folder) / 'world').items() if args.of in name}
        numbers = range(args.first, args.first + args.cases) if args.only is None else [args.only]
        return run(recipes, list(numbers), args.seed, args.jobs, Path(folder), args.only is not None)


def make_recipes(folder: Path) -> dict[str, dict]:
    """Every recipe by its name."""
    folder.mkdir()
    torch.manual_seed(0)
    world = World(folder)
    return {f'{file.parent.name}/{file.name}': world.recipe(file) for file in recipe_files()}


def case_of(recipes: dict[str, dict], seed: int, number: int) -> Case:
    """The case of a seed and a number."""
    rng = random.Random(f'{seed} {number}')
    name = rng.choice(sorted(recipes))
    tests = sorted(name for name in recipes if name.startswith('test/'))
    if rng.random() < 0.25 and tests:  # they are few among the recipes
        name = rng.choice(tests)
    case = make_case(recipes[name], rng)
    case.notes.insert(0, name)
    return case


def run(recipes: dict[str, dict], numbers: list[int], seed: int, jobs: int, folder: Path, in_full: bool) -> int:
    """Try the cases, print those that fail, and count."""
    running: dict[int, tuple[tuple[int, Case], float]] = {}
    waiting, ends, failed, kinds = numbers[::-1], Counter[str](), 0, Counter[str]()
    begun = time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            number = waiting.pop()
            case = case_of(recipes, seed, number)
            running[start(case, folder / str(number))] = (number, case), time.monotonic()
        process, status = wait_for_one(running, LONGEST)
        (number, case), started = running.pop(process)
        outcome = finish(folder / str(number), status)
        ends[str(outcome.codes)] += 1
        if outcome.faults:
            failed += 1
            kinds[outcome.faults[0].partition(': ')[2].partition(': ')[0]] += 1
            print(f'--seed {seed} --only {number}: {"; ".join(case.notes)}', *outcome.faults, sep='\n    ', flush=True)
        if (took := time.monotonic() - started) > 10:
            print(f'case {number} took {took:.0f} s: {"; ".join(case.notes)}')
        if in_full:
            _print_in_full(case, outcome, folder / str(number))
        shutil.rmtree(folder / str(number))
    print(f'{len(numbers)} cases with seed {seed} in {time.monotonic() - begun:.0f} s, {failed} failed')
    for end, count in sorted(ends.items()):
        print(f'  {count} ended with {end}')
    for kind, count in kinds.most_common():
        print(f'  {count} x {kind}')
    return int(failed > 0)


def _print_in_full(case: Case, outcome: Outcome, folder: Path) -> None:
    print(case.text.decode('utf-8', 'replace')[:20000], f'--force_yml {case.force}', sep='\n')
    for name in ('out', 'err'):
        print(f'--- {name}', (folder / name).read_text(encoding='utf-8', errors='replace')[-5000:], sep='\n')
    print(outcome.trace)


if __name__ == '__main__':
    sys.exit(main())
