"""Average Gap and ToW: by hand, at their ends, and null where a part is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.summary import average_gap, summaries, tug_of_war

RETRAIN = {"forget_accuracy": 90.0, "retain_accuracy": 99.0, "test_accuracy": 91.0, "mia_svc": 88.0}
MINE = {"forget_accuracy": 94.0, "retain_accuracy": 98.0, "test_accuracy": 90.0, "mia_svc": 94.0}
NAMES = list(RETRAIN)
percents = st.fixed_dictionaries({name: st.floats(0, 100) for name in NAMES})


def test_by_hand():
    assert average_gap(MINE, RETRAIN) == (4 + 1 + 1 + 6) / 4
    assert tug_of_war(MINE, RETRAIN) == pytest.approx(0.96 * 0.99 * 0.99)


@given(percents)
def test_retraining_itself_is_as_good_as_can_be(values):
    assert summaries(values, values) == {"average_gap": 0.0, "tug_of_war": 1.0}


@given(percents, percents)
def test_they_are_symmetric_and_within_bounds(one, other):
    assert summaries(one, other) == summaries(other, one)
    assert 0 <= average_gap(one, other) <= 100
    assert 0 <= tug_of_war(one, other) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_null_where_a_part_is(name):
    assert average_gap(MINE | {name: None}, RETRAIN) is None
    assert average_gap(MINE, RETRAIN | {name: None}) is None
    assert (tug_of_war(MINE | {name: None}, RETRAIN) is None) == (name != "mia_svc")


def test_of_masks_by_dice():
    masks = [{k.replace("accuracy", "dice"): v for k, v in each.items()} for each in (MINE, RETRAIN)]
    assert summaries(*masks, task="segmentation") == summaries(MINE, RETRAIN)
