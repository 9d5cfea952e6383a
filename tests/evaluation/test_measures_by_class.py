"""Test accuracy on remaining and forgotten classes: by plain counting, and only where whole classes are forgotten."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.evaluation.outputs import ModelOutputs
from tests.evaluation.builders import lists, measure, split, splits

NAMES = ["retain_test_accuracy", "forget_test_accuracy"]
TRAIN = split([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0], [0, 9, 0], [0, 0, 9]], [0, 1, 2, 0, 1, 2])
TEST = split([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], [0, 0, 1, 2])


def by_classes(test, forget, retain, train=TRAIN):
    outputs = ModelOutputs(train, None, test)
    found = measure(outputs, forget=np.array(forget, int), retain=np.array(retain, int), seed=1)
    return {name: found[name] for name in NAMES if name in found}, found


def counted(test, classes):
    """Percent right among the rows of these classes, one by one; None where there are none."""
    right = [
        row.index(max(row)) == label for row, label in zip(*lists(test), strict=True) if label in classes
    ]
    return 100 * sum(right) / len(right) if right else None


@given(splits(least=1), st.sampled_from([{0}, {1}, {2}, {0, 2}]))
def test_they_are_counted_over_the_right_rows(test, gone):
    labels = TRAIN.labels.tolist()
    forget = [i for i, label in enumerate(labels) if label in gone]
    retain = [i for i, label in enumerate(labels) if label not in gone]
    found, every = by_classes(test, forget, retain)
    expected = counted(test, {0, 1, 2} - gone), counted(test, gone)
    assert tuple(found.values()) == pytest.approx(expected)
    for name, value in zip(NAMES, expected, strict=True):
        assert (name in every.reasons) == (value is None)


def test_by_hand():
    found, _ = by_classes(TEST, [0, 3], [1, 2, 4, 5])
    assert found == {"retain_test_accuracy": 0.0, "forget_test_accuracy": 50.0}


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        ([0], [1, 2, 3, 4, 5]),  # an example of the class is retained
        ([0, 3, 1], [2, 4, 5]),  # a whole class, and of another one a part
        ([], [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 3, 4, 5], []),  # no class remains
    ],
)
def test_they_are_not_there_where_not_whole_classes_are_forgotten(forget, retain):
    assert by_classes(TEST, forget, retain)[0] == {}


def test_a_class_that_an_earlier_request_has_forgotten_counts_for_neither():
    found, _ = by_classes(TEST, [0, 3], [2, 5])
    assert found == {"retain_test_accuracy": counted(TEST, {2}), "forget_test_accuracy": counted(TEST, {0})}


def test_nobody_knows_without_the_training_labels():
    assert by_classes(TEST, [0, 3], [1, 2, 4, 5], train=None)[0] == {}


def test_they_stand_where_the_built_in_metrics_have_them():
    _, every = by_classes(TEST, [0, 3], [1, 2, 4, 5])
    assert list(every) == [name for name in BUILT_IN if name in every]
