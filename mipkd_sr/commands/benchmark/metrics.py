"""PSNR and SSIM of a 2K image, here and in BasicSR.

mipkd benchmark metrics
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The measurement takes nothing."""


def run(args: argparse.Namespace) -> None:
    """Time both, on Y and on RGB."""
    from mipkd_sr.costs.metrics_speed import time_metrics
    from mipkd_sr.evaluation.tables import markdown_table

    rows = []
    for name, y_channel in (('Y', True), ('RGB', False)):
        ours, theirs = time_metrics(y_channel)
        rows.append([name, f'{1000 * ours:.0f}', f'{1000 * theirs:.0f}', f'{theirs / ours:.1f}'])
    print(markdown_table(['PSNR and SSIM of', 'ms here', 'ms in BasicSR', 'times as fast'], rows))
