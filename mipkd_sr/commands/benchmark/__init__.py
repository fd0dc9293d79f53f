"""Measure time and memory of what the methods are made of.

mipkd benchmark step                                    # a training step of each method, beside KD's and its own floor
mipkd benchmark complexity -opt papers               # parameters, multiply-adds, speed, memory
mipkd benchmark device --scale 2                     # a student in every runtime that is installed
mipkd benchmark plan -opt mipkd/edsr_x4 --gpu V100 --gpus 4    # what hours and memory a recipe is expected to take
"""

import argparse

from mipkd_sr.commands.benchmark import complexity, device, plan, step

MEASUREMENTS = (step, complexity, device, plan)
ONCE = {'complexity-once': complexity, 'device-once': device}
"""Single measurements that the others start in processes of their own; not shown by --help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measurements = parser.add_subparsers(title='measurements', metavar='MEASUREMENT', required=True)
    for module in MEASUREMENTS:
        description = str(module.__doc__)
        own = measurements.add_parser(
            module.__name__.rpartition('.')[2],
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(own)
        own.set_defaults(measure=module.run)
    for name, once in ONCE.items():
        own = measurements.add_parser(name)
        once.add_arguments_of_once(own)
        own.set_defaults(measure=once.run_once)


def run(args: argparse.Namespace) -> int:
    args.measure(args)
    return 0
