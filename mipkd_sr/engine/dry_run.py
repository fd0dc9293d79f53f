"""``--dry_run``: everything is checked and built, what would run is printed, and nothing is written."""

from typing import Any

from mipkd_sr.engine.options import Options


def describe_training(options: Options) -> int:
    """TODO"""
    raise NotImplementedError
