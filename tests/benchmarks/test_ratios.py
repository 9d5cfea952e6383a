"""Ratios and their intervals, on numbers whose answer is known."""

import pytest

from benchmarks import ratios


def test_a_slow_moment_slows_both_of_a_pair_and_changes_no_ratio():
    found = ratios.paired([1.2, 1.2, 3.6, 3.6, 1.2], [1.0, 1.0, 3.0, 3.0, 1.0])
    assert (found.value, found.low, found.high) == pytest.approx((1.2, 1.2, 1.2))
    assert found.n == 5


def test_the_median_of_pairs_lies_in_its_interval():
    found = ratios.paired([1.0, 1.1, 3.6, 3.9, 1.4], [1.0, 1.0, 3.0, 3.0, 1.0])
    assert found.value == pytest.approx(1.2)
    assert 1.0 <= found.low < found.value < found.high <= 1.4


def test_blocks_are_compared_by_the_ratio_of_their_medians():
    found = ratios.of_blocks([[2.0, 2.0, 100.0], [2.0, 2.0]], [[0.5, 0.5], [0.5]])
    assert found.value == 4.0
    assert found.low == 4.0
    assert found.n == 3


def test_the_interval_of_blocks_is_as_wide_as_they_differ():
    # Rounds of one process agree to the last digit; processes differ. Rounds alone would promise too much.
    found = ratios.of_blocks([[1.0] * 50, [3.0] * 50], [[1.0] * 50, [1.0] * 50])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


def test_half_of_the_numbers_lie_between_the_quartiles():
    assert ratios.spread([5.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 4.0)
