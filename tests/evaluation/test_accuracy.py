"""Accuracy in percent, and its parts add up to the whole."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.accuracy import accuracy, mean_loss, per_class, per_client
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.builders import lists, split, splits
from tests.oracles import membership as oracle


def test_three_of_four():
    assert accuracy(split([[2, 1], [0, 3], [5, 1], [0, 1]], [0, 1, 0, 0])) == 75.0


def test_of_equal_logits_the_first_counts():
    assert accuracy(split([[1, 1], [1, 1]], [0, 1])) == 50.0


@given(splits())
def test_against_counting(outputs):
    rows, labels = lists(outputs)
    right = sum(row.index(max(row)) == label for row, label in zip(rows, labels, strict=True))
    assert accuracy(outputs) == 100 * right / len(labels)
    expected = math.fsum(oracle.losses(rows, labels)) / len(labels)
    assert mean_loss(outputs) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@given(splits())
def test_classes_weighted_by_size_give_the_whole(outputs):
    by_class = per_class(outputs)
    sizes = np.bincount(outputs.label_array, minlength=3)
    assert [value is None for value in by_class] == [size == 0 for size in sizes]
    total = sum(size * value for size, value in zip(sizes, by_class, strict=True) if value is not None)
    assert total / len(outputs) == pytest.approx(accuracy(outputs))


@given(splits(), st.data())
def test_each_client_is_measured_on_its_own_examples(outputs, data):
    owner = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(outputs), max_size=len(outputs))))
    clients = [np.flatnonzero(owner == k) for k in range(4)]
    expected = [accuracy(outputs.take(indices)) if len(indices) else None for indices in clients]
    assert per_client(outputs, clients) == expected


@pytest.mark.parametrize("measure", [accuracy, mean_loss])
def test_nothing_to_measure(measure):
    with pytest.raises(Unmeasurable, match="there are no examples"):
        measure(split([], [], num_classes=3))
