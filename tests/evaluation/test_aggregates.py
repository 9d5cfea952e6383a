"""Summaries over seeds and targets: nothing invented from one row, nothing dropped that did not recover."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.aggregates import aggregate, summary
from fedunlearn.evaluation.rows import Cost, Forget, Row
from tests.oracles import bootstrap as oracle
from tests.profiles import few

values = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def row(label="puf", at="recovered", *, epochs=5, **changes):
    given = {
        "method": "puf",
        "label": label,
        "seed": 1,
        "request": None,
        "target": 0,
        "forget": Forget((0,)),
        "at": at,
        "round": 31,
        "metrics": {"test_accuracy": 90.0},
        "gap": {"test_accuracy": 1.0},
        "floor": {"test_accuracy": 0.5},
        "cost": Cost(epochs, 100, 200, 3.0),
        "recovery_rounds": 4,
        "recovery_rounds_authors": 3,
        "recovered": True,
    }
    return Row(**{**given, **changes})


@given(values)
def test_mean_and_standard_deviation(numbers):
    result = summary(numbers)
    assert result["mean"] == pytest.approx(statistics.fmean(numbers), abs=1e-9)
    assert result["std"] == pytest.approx(statistics.stdev(numbers), abs=1e-9)
    assert result["n"] == len(numbers)


@few
@given(values)
def test_the_interval_is_the_loops(numbers):
    result = summary(numbers)
    assert (result["low"], result["high"]) == pytest.approx(oracle.interval(numbers), abs=1e-9)


@given(values)
def test_the_interval_lies_within_the_values_and_is_the_same_each_time(numbers):
    result = summary(numbers)
    assert min(numbers) - 1e-9 <= result["low"] <= result["high"] <= max(numbers) + 1e-9
    assert summary(numbers) == result


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples = generator.normal(3, 1, (200, 20))
    covered = sum(s["low"] <= 3 <= s["high"] for s in map(summary, samples))
    assert 175 <= covered <= 198


def test_one_value_has_no_spread_and_none_is_not_a_value():
    assert summary([None, 7.0]) == {"mean": 7.0, "std": None, "low": None, "high": None, "n": 1}
    assert summary([None]) == {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    assert summary([1, None, 3])["n"] == 2


def test_rows_are_grouped_by_label_and_moment_in_order_of_appearance():
    lines = aggregate([row("b"), row("a"), row("b", "cap"), row("a"), row("b")])
    assert [(line["label"], line["at"], line["n"]) for line in lines] == [
        ("b", "recovered", 2),
        ("a", "recovered", 2),
        ("b", "cap", 1),
    ]


def test_signed_gaps_cancel_and_absolute_ones_do_not():
    (line,) = aggregate([row(gap={"test_accuracy": 2.0}), row(gap={"test_accuracy": -2.0})])
    assert line["gap"]["test_accuracy"]["mean"] == 0
    assert line["abs_gap"]["test_accuracy"]["mean"] == 2


def test_what_one_row_lacks_is_averaged_over_the_others():
    (line,) = aggregate([row(metrics={"mia_auc": None}), row(metrics={"mia_auc": 0.5, "test_loss": 1.0})])
    assert (line["metrics"]["mia_auc"]["mean"], line["metrics"]["mia_auc"]["n"]) == (0.5, 1)
    assert (line["metrics"]["test_loss"]["mean"], line["metrics"]["test_loss"]["n"]) == (1.0, 1)
    assert line["floor"]["test_accuracy"]["n"] == 2


def censored(**changes):
    return row(recovered=False, recovery_rounds=None, recovery_rounds_authors=None, **changes)


def test_a_censored_row_is_counted_and_moves_the_median():
    (line,) = aggregate([row(recovery_rounds=2), row(recovery_rounds=4), censored()])
    assert (line["censored"], line["n"]) == (1, 3)
    assert (line["recovery_rounds"]["mean"], line["recovery_rounds"]["n"]) == (3, 2)
    assert line["recovery_rounds"]["median"] == 4


def test_the_median_is_unknown_when_half_the_rows_are_censored():
    (line,) = aggregate([row(), censored()])
    assert line["recovery_rounds"]["median"] is None
    assert line["recovery_rounds"]["mean"] == 4


def test_rows_that_need_not_recover_are_not_censored():
    (line,) = aggregate([row(recovered=None, recovery_rounds=None, recovery_rounds_authors=None)])
    assert line["censored"] == 0
    assert line["recovery_rounds"] == {
        "mean": None, "std": None, "low": None, "high": None, "n": 0, "median": None,
    }  # fmt: skip


def test_costs_are_averaged_without_seconds():
    (line,) = aggregate([row(epochs=10), row(epochs=20)])
    assert line["cost"]["client_epochs"]["mean"] == 15
    assert set(line["cost"]) == {"client_epochs", "bytes_up", "bytes_down"}
