"""Randomness as a function of seed, rank and iteration, so that a resumed run draws what an undisturbed one draws."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix_seed(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several non-negative numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's default generators (on every device) from several non-negative numbers."""
    torch.manual_seed(seed_cpu(*numbers))


def seed_cpu(*numbers: int) -> int:
    """Seed Python's, NumPy's and torch's default generators of the CPU as ``seed_everything`` does; returns the seed.

    ``torch.manual_seed`` seeds every device; where a device is not in use yet that takes half a millisecond.
    """
    seed = mix_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    return seed


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave Python's, NumPy's and torch's default generators (the CPU's) as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
