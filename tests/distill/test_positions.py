"""Distillation positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipkd_sr.distill.positions import unit_indices


def test_networks_of_different_depth_match_by_fraction():
    assert unit_indices([0.5, 1.0], 32) == [16, 32]
    assert unit_indices([0.5, 1.0], 16) == [8, 16]
    assert unit_indices(3, 32) == [11, 21, 32]
    assert unit_indices(3, 6) == [2, 4, 6]


def test_whole_numbers_are_unit_indices():
    assert unit_indices([1, 3, 1.0], 4) == [1, 3, 4]


@given(st.data())
def test_a_count_parts_the_body_evenly_and_ends_with_it(data):
    depth = data.draw(st.integers(1, 64))
    count = data.draw(st.integers(1, max(1, depth // 2)))
    indices = unit_indices(count, depth)
    assert len(indices) == count
    assert indices[-1] == depth
    gaps = [after - before for before, after in zip([0, *indices], indices, strict=False)]
    assert max(gaps) - min(gaps) <= 2


@given(st.integers(1, 32), st.integers(1, 4), st.data())
def test_a_deeper_twin_has_the_same_places(depth, factor, data):
    index = data.draw(st.integers(1, depth))
    assert unit_indices([index / depth], depth * factor) == [index * factor]


@pytest.mark.parametrize('positions', [0, 5, [0.0], [1.5], [5], [0], [0.5, 0.5], [0.9, 0.2], ['half'], [True]])
def test_what_is_no_place_is_refused(positions):
    with pytest.raises(ValueError, match='position'):
        unit_indices(positions, 4)
