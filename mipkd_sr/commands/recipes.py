"""List the recipes that come with the package, print one, or copy one to be edited.

mipkd recipes                                # their names, each with its first line
mipkd recipes mipkd/edsr_x4                  # with everything that it extends, merged
mipkd recipes mipkd/edsr_x4 --copy .         # to ./options, with what it extends; nothing is overwritten
"""

import argparse
import os
import shutil
from pathlib import Path

from mipkd_sr.options.recipes import RECIPES, first_line, recipe_names, require_recipe
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.runtime.files import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', help='the recipe to print or copy')
    parser.add_argument('--copy', type=Path, metavar='FOLDER', help='copy it to FOLDER/options, with what it extends')


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        if args.copy:
            raise OptionError('--copy', 'needs the name of a recipe before it.')
        print_list()
    elif args.copy:
        copy(args.name, args.copy)
    else:
        print_merged(args.name)
    return 0


def print_list() -> None:
    """Print every recipe's name and first line."""
    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        print(f'{name:{width}}  {first_line(name)}'.rstrip())
    print(f'\nThey are in {RECIPES}')


def print_merged(name: str) -> None:
    """Print a recipe with everything that it extends."""
    from mipkd_sr.options.reading import dump_options, read_options  # starts PyTorch

    options = read_options(require_recipe(name))
    print(f'# {name}: {first_line(name)}\n# Merged, a later file over an earlier one, from')
    for file in options.files:
        print(f'#   {file}')
    print(dump_options(options.template), end='')


def copy(name: str, folder: Path) -> None:
    """Copy a recipe and what it extends to ``folder``/options; what is there already stays as it is."""
    from mipkd_sr.options.reading import read_options  # starts PyTorch

    for file in read_options(require_recipe(name)).files:
        target = folder / 'options' / file.relative_to(RECIPES)
        if os.path.lexists(target):
            same = target.is_file() and target.read_bytes() == file.read_bytes()
            print(f'{target} is there already{"" if same else ", and is not as shipped; it stays"}')
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            shutil.copyfile(file, part)
        print(target)
    own = folder / 'options' / require_recipe(name).relative_to(RECIPES)
    print(f'Edit it, and run: mipkd {"test" if own.parent.name == "test" else "train"} -opt {own}')
