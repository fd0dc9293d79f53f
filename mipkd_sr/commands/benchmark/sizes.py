"""A step's time and memory against batch, patch, teacher's width, K and world size, and what a plan expects.

mipkd benchmark sizes --out experiments/studies/speed
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mipkd_sr.commands.benchmark.options_of_run import DEMO, run_options
from mipkd_sr.commands.benchmark.own_process import measure_apart
from mipkd_sr.commands.command_line import add_import_argument
from mipkd_sr.runtime.errors import RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('-opt', default=DEMO, help=f'training options; default: {DEMO}')
    add_import_argument(parser)
    parser.add_argument('--out', type=Path, help='folder for the table, the figures and the raw numbers')


def run(args: argparse.Namespace) -> None:
    """Measure a step of KD and of MiPKD at several sizes, each in a process of its own."""
    import torch

    from mipkd_sr.costs.sizes import SIZES, sizes_table

    found: list[dict[str, Any]] = []
    asked = ['--import', *args.imports] if args.imports else []
    for what, values in SIZES.items():
        for value, force in values.items():
            environment, launcher = {}, []
            if what == 'world size':
                if torch.cuda.is_available() and value > torch.cuda.device_count():
                    continue
                launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={value}']
                environment = {'OMP_NUM_THREADS': '1'}
            for method in ('KD', 'MiPKD'):
                arguments = ['sizes-once', '--method', method, '-opt', args.opt, *asked, '--force', *force]
                text, failure = measure_apart(arguments, launcher, environment)
                if failure:
                    raise RunError(f'{what} {value}, {method}: {failure}')
                found.append({'varied': what, 'value': value, 'method': method, **json.loads(text)})
    text = sizes_table(found)
    print(text)
    if args.out:
        from mipkd_sr.evaluation.figures import sizes_figure

        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'sizes.json').write_text(json.dumps(found, indent=1) + '\n')
        (args.out / 'sizes.md').write_text(f'{text}\n')
        sizes_figure(found, args.out / 'sizes')


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    """What one measurement takes."""
    parser.add_argument('-opt', required=True)
    add_import_argument(parser)
    parser.add_argument('--method', required=True)
    parser.add_argument('--force', nargs='*', default=[])
    parser.add_argument('--repeats', type=int, default=16)
    parser.set_defaults(batch=None, patch=None)


def run_once(args: argparse.Namespace) -> None:
    """One measurement, and the plan for it at the speed of this process, as JSON."""
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.costs.sizes import measure_size

    opt = run_options(args)
    found = measure_size(opt, args.method, args.repeats, this_device())
    if opt.get('rank', 0) == 0:
        print(json.dumps(found))
