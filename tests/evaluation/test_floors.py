"""Gaps to the retrained model, the floor between retrainings, and which of them is an outlier."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.floors import CRITICAL, LEAST, Outlier, floor_of, gaps, outliers

measured = st.dictionaries(
    st.sampled_from(["forget_accuracy", "test_accuracy", "mia_auc", "l2_to_retrain"]),
    st.none() | st.floats(-100, 100),
)


@given(measured, measured)
def test_a_gap_is_the_difference_where_there_is_one(model, retrain):
    for name, gap in gaps(model, retrain).items():
        if name == "l2_to_retrain":
            assert gap == model[name]
        elif model[name] is None or retrain.get(name) is None:
            assert gap is None
        else:
            assert gap == model[name] - retrain[name]


@given(measured)
def test_retrain_has_no_gap_to_itself(values):
    values = {name: value for name, value in values.items() if name != "l2_to_retrain"}
    assert all(gap in (0, None) for gap in gaps(values, values).values())


def test_signs_and_distances():
    retrain = {"forget_accuracy": 60.0, "l2_to_retrain": 0.0}
    assert gaps({"forget_accuracy": 55.0, "l2_to_retrain": 2.0}, retrain) == {
        "forget_accuracy": -5.0,
        "l2_to_retrain": 2.0,
    }
    second = {"forget_accuracy": 58.0, "l2_to_retrain": 1.5}
    assert floor_of(retrain, [second]).median == {"forget_accuracy": 2.0, "l2_to_retrain": 1.5}


@given(measured, measured)
def test_the_floor_of_one_further_retraining_is_its_gap_without_the_sign(retrain, second):
    expected = {name: gap if gap is None else abs(gap) for name, gap in gaps(second, retrain).items()}
    found = floor_of(retrain, [second])
    assert found.median == expected
    assert found.distances == {name: (value,) for name, value in expected.items()}


@given(measured, st.lists(measured, min_size=1, max_size=6))
def test_of_several_it_is_the_median_of_what_is_known_in_any_order(retrain, others):
    found = floor_of(retrain, others)
    assert found.median == floor_of(retrain, others[::-1]).median
    for name, values in found.distances.items():
        assert len(values) == len(others)
        known = [value for value in values if value is not None]
        assert found.median[name] == (float(np.median(known)) if known else None)


def accuracies(*values):
    return {f"floor-{place}": {"forget_accuracy": value} for place, value in enumerate(values)}


def test_one_of_three_that_dips_in_a_round_neither_makes_the_floor_nor_goes_unnamed():
    retrain, others = {"forget_accuracy": 90.2}, [{"forget_accuracy": value} for value in (62.0, 90.9, 91.0)]
    assert floor_of(retrain, others).median["forget_accuracy"] == pytest.approx(0.8)
    assert floor_of(retrain, others[:1]).median["forget_accuracy"] == pytest.approx(28.2), "alone it makes it"
    named = {"retrain-0-s1": retrain} | {f"floor-0-s1-{i}": other for i, other in enumerate(others, 1)}
    assert outliers(named) == (Outlier("floor-0-s1-1", "forget_accuracy", 62.0, 90.9),)


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        ((90.0, 62.0), None),  # of two nobody can say which
        ((90.0, 90.1, 62.0), 2),
        ((90.0, 91.0, 62.0), None),  # Q = 28 / 29 < 0.994
        ((90.0, 91.0, 92.0, 62.0), 3),  # Q = 28 / 30 > 0.926
        ((90.0, 91.0, 91.5, 99.0), None),  # Q = 7.5 / 9
        ((90.0, 90.1, 90.1, 91.9), None),  # far in its own terms, and no reading changes by it
        ((90.0, 90.1, 90.1, 92.2), 3),
        ((90.0, 90.0, 90.0, 90.0), None),
        ((None, 90.0, 90.0, 60.0), 3),
    ],
)
def test_which_one_is_odd(values, odd):
    found = outliers(accuracies(*values))
    assert [outlier.retraining for outlier in found] == ([] if odd is None else [f"floor-{odd}"])


@pytest.mark.parametrize("size", [3, 4, 6, 10])
def test_of_retrainings_that_differ_by_chance_about_one_in_a_hundred_is_named(size):
    rng = np.random.default_rng(3)
    named = sum(bool(outliers(accuracies(*(100 * LEAST * rng.standard_normal(size))))) for _ in range(8000))
    assert 0.005 < named / 8000 < 0.03, "two sides of a test at 1 %"


def test_distances_and_summaries_are_samples_of_nothing():
    values = {"l2_to_retrain": 0.0, "average_gap": 0.0, "forget_loss": 0.1, "tug_of_war": 1.0}
    far = {"l2_to_retrain": 50.0, "average_gap": 50.0, "forget_loss": 50.0, "tug_of_war": 0.1}
    assert outliers({"retrain": values, "a": far, "b": far, "c": far}) == ()
    assert len(CRITICAL) == 8
