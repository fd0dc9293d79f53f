"""What it saves that DUKD's LR patch and zoom-in share a call.

mipkd benchmark views --batch 8 --patch 24
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    parser.add_argument('--batch', type=int, default=8, help='patches a step')
    parser.add_argument('--patch', type=int, default=24, help='side of the LR patches')


def run(args: argparse.Namespace) -> None:
    """Time a step of KD + DUKD with one call for LR patch and zoom-in, and with two."""
    from mipkd_sr.costs.measuring import this_device
    from mipkd_sr.costs.views import time_views
    from mipkd_sr.evaluation.tables import markdown_table

    device, rows = this_device(), []
    for name, together in (('one call', True), ('two calls', False)):
        median, spread = time_views(together, args.batch, args.patch, device)
        rows.append([name, f'{1000 * median:.1f}', f'{1000 * spread:.1f}'])
    print(f'KD + DUKD, EDSR 16/4 under 32/10 at x2, {args.batch} patches of {args.patch} x {args.patch}, on {device}')
    print(markdown_table(['LR patch and zoom-in', 'ms a step (median)', 'interquartile range'], rows))
