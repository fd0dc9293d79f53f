"""Training patches a second from 2K images, as PNG files and as arrays.

mipkd benchmark loader --patches 4000
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('--patches', type=int, default=4000, help='patches to read from arrays')


def run(args: argparse.Namespace) -> None:
    """Time the reading."""
    from mipkd_sr.costs.reading_rate import measure_reading
    from mipkd_sr.evaluation.tables import markdown_table

    png, npy = measure_reading(args.patches)
    rows = [[f'{r.dataset}, {r.store}', f'{r.patches_per_second:,.0f}', f'{r.mib:,.0f}'] for r in (png, npy)]
    print(markdown_table(['data set', 'patches a second of one core', 'MiB on the disk'], rows))
    print(f'{npy.patches_per_second / png.patches_per_second:.1f} times')
