"""Distillation positions: the places in two networks' bodies where their features are compared or mixed."""

from collections.abc import Sequence


def unit_indices(positions: int | Sequence[int | float], depth: int) -> list[int]:
    """Turn distillation positions into unit indices of a body of ``depth`` units, in 1..depth, ascending.

    Index i is the place after the i-th unit. Fractions of the depth let networks of different depth match: 16 of 32
    blocks and 8 of 16 are both 0.5.

    Args:
        positions: A count K, for K places that part the body evenly and end with its end (K = 3: thirds); or a list of
            fractions of the depth in (0, 1] (written with a dot: 1.0 is the end) and unit indices (whole numbers).
        depth: See above.

    Raises:
        ValueError: If a position is outside the body, or two of them are the same place.
    """
    if isinstance(positions, int):
        if positions < 1:
            raise ValueError(f'positions must be at least 1, not {positions}')
        positions = [(k + 1) / positions for k in range(positions)]
    if not positions:
        raise ValueError('positions is empty, so nothing would be distilled: give a count or a list of places')
    indices = []
    for position in positions:
        if isinstance(position, bool) or not isinstance(position, int | float):
            raise ValueError(f'position {position!r} is neither a fraction of the depth nor a unit index')
        inside = 1 <= position <= depth if isinstance(position, int) else 0 < position <= 1
        if not inside:
            raise ValueError(f'position {position} is outside a body of {depth} units')
        indices.append(position if isinstance(position, int) else max(1, round(position * depth)))
    if sorted(set(indices)) != indices:
        raise ValueError(f'the positions fall on the units {indices} of a body of {depth}: they must ascend and differ')
    return indices
