"""Distil a student on this machine, with no GPU and no data set: a few minutes on two CPU cores.

mipkd demo                      # in the current folder: datasets/demo, experiments/demo_*, results/demo
mipkd demo --root SOME_FOLDER

Trains the same small student plainly, with logits KD and with MiPKD, and compares them on photographs held out.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from mipkd_sr.options.recipes import recipe_file

STEPS = {
    'Training the student: plain': ['train', 'demo/plain', '--auto_resume'],
    'Training the student: kd': ['train', 'demo/kd', '--auto_resume'],
    'Training the student: mipkd': ['train', 'demo/mipkd', '--auto_resume'],
    'Testing': ['test', 'demo'],
}
"""What the demo says, and the command and the recipe that it then runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--root', type=Path, default=Path(), help='folder to work in; default: the current one')


def run(args: argparse.Namespace) -> int:
    root = args.root.absolute()
    prepare(root)
    for title, (command, recipe, *flags) in STEPS.items():
        print(f'== {title}', flush=True)
        arguments = [command, '-opt', str(recipe_file(recipe)), '--root', str(root), *flags]
        if code := subprocess.run([sys.executable, '-m', 'mipkd_sr', *arguments]).returncode:
            return code
    return 0


def prepare(root: Path) -> None:
    """Put the demo's pairs under ``root``, where its recipes expect them."""
    from mipkd_sr.data.demo_pairs import write_demo_pairs

    folder = root / 'datasets' / 'demo'
    pairs, held_out = write_demo_pairs(folder)
    print(f'Demo data in {folder}: {pairs} training pairs, {held_out} photographs held out', flush=True)
