"""Splits are exact, have the sizes promised, and move with nothing but what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data.split import stratified_test_split, validation_split
from fedunlearn.errors import ConfigError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=100).map(np.array), st.floats(0, 1))
def test_test_split_is_exact_and_stratified(labels, share):
    train, test = stratified_test_split(labels, share)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert list(train) == sorted(train)
    assert list(test) == sorted(test)
    for label in set(labels):
        assert (labels[test] == label).sum() == round(share * (labels == label).sum())


def test_test_rows_are_drawn_from_all_over_a_class_and_stay_the_same_ones():
    labels = np.zeros(200, dtype=np.int64)
    _, test = stratified_test_split(labels, 0.2)
    assert test.min() < 50
    assert test.max() >= 150
    assert np.array_equal(test, stratified_test_split(labels, 0.2)[1])


@given(st.integers(20, 300), st.floats(0.05, 0.9), st.integers(0, 2**32))
def test_validation_split_is_exact_and_of_the_size_asked_for(n, share, seed):
    train, validation = validation_split(n, share, np.random.default_rng(seed))
    assert sorted([*train, *validation]) == list(range(n))
    assert list(train) == sorted(train)
    assert len(validation) == round(share * n)


@given(st.integers(20, 300), st.integers(0, 2**32))
def test_validation_rows_are_the_first_of_the_permutation(n, seed):
    _, validation = validation_split(n, 0.3, np.random.default_rng(seed))
    first = np.random.default_rng(seed).permutation(n)[: round(0.3 * n)]
    assert set(validation) == set(first)


def test_no_validation_keeps_every_row_in_order():
    train, validation = validation_split(7, 0.0, np.random.default_rng(0))
    assert (train.tolist(), validation.tolist()) == ([0, 1, 2, 3, 4, 5, 6], [])


@pytest.mark.parametrize(
    ("n", "share", "message"),
    [
        (100, 0.001, "data.validation = 0.001: holds out none of 100 rows; raise it, or set it to 0"),
        (10, 0.99, "data.validation = 0.99: leaves none of 10 rows to train on; lower it"),
    ],
)
def test_a_share_that_rounds_to_nothing_or_everything_is_refused(n, share, message):
    with pytest.raises(ConfigError) as caught:
        validation_split(n, share, np.random.default_rng(0))
    assert str(caught.value) == message
