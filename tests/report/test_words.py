"""Numbers as a reader sees them say what the number is."""

import doctest
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.html import markup
from fedunlearn.html.markup import join, tag
from fedunlearn.report import words
from fedunlearn.report.words import (
    PartName,
    clients,
    magnitude,
    measured,
    metric_help,
    number,
    origin_words,
)


@pytest.mark.parametrize("module", [words, markup])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def value_of(text: str) -> float:
    return float(text.replace("−", "-"))


@given(st.floats(-1e6, 1e6), st.integers(0, 4), st.booleans())
def test_a_number_reads_back_within_its_last_digit(value, digits, sign):
    text = number(value, digits, sign=sign)
    assert abs(value_of(text) - value) <= 0.5 * 10**-digits + 1e-9
    assert (text[0] in "+−") == ((sign or value_of(text) < 0) and value_of(text) != 0)


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_what_is_no_number_is_a_dash(nothing):
    assert number(nothing) == magnitude(nothing, "B") == measured(BUILT_IN["test_loss"], nothing) == "–"


@given(st.floats(1e-3, 1e15), st.sampled_from(["B", "s", ""]))
def test_a_magnitude_reads_back_to_three_figures(value, unit):
    match = re.fullmatch(r"([\d.e+-]+) ?([a-zA-Z]*)", magnitude(value, unit))
    assert match is not None
    scale = {
        "": 1,
        "B": 1,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "PB": 1e15,
        "s": 1,
        "min": 60,
        "h": 3600,
    }
    assert math.isclose(float(match[1]) * scale[match[2]], value, rel_tol=0.0051)


def test_the_unit_of_a_metric_decides_its_digits_and_the_unit_of_its_gap():
    units = {"%": "points", "mm": "mm", "nats": "nats", "weights": "weights", "0 to 1": "", "0 to 2": ""}
    for metric in BUILT_IN.values():
        assert measured(metric, 12.3456) == ("12.3" if metric.unit in ("%", "mm") else "12.346")
        assert metric.gap_unit == units[metric.unit]


def test_a_distance_is_called_one_wherever_it_is_read():
    """0.002 is 1 minus the cosine."""
    metric = BUILT_IN["cosine_to_retrain"]
    assert metric.title == "cosine distance to retrain"
    assert metric.description.startswith("Cosine distance to retrain")


def test_the_help_of_a_metric_says_what_it_is_in_what_and_which_way_is_better():
    assert metric_help(BUILT_IN["forget_accuracy"]) == (
        "Accuracy on the training data to forget (%); better: nearer to retrain's"
    )
    assert metric_help(BUILT_IN["average_gap"]).endswith("(%); better: lower, down to the floor")
    assert metric_help(BUILT_IN["tug_of_war"]).endswith("(0 to 1); better: higher, up to 1")
    assert metric_help(Declaration("something_new", title="something new")) is None


def test_clients_in_words():
    assert [clients(some) for some in ((), (3,), (2, 3), (1, 2, 3))] == [
        "no client",
        "client 3",
        "clients 2 and 3",
        "clients 1, 2 and 3",
    ]


def test_clients_with_names():
    names = {0: "BIDMC", 5: "UCL"}
    assert clients([0], names) == "client 0 (BIDMC)"
    assert clients([0, 3, 5], names) == "clients 0 (BIDMC), 3 and 5 (UCL)"


def test_where_data_are_from_is_said_of_all_but_real_data():
    assert origin_words("") == ""
    assert "not patients" in origin_words("phantom")
    assert "not real" in origin_words("synthetic")
    assert "moon" in origin_words("moon"), "also where this version does not know it"


@given(st.text())
def test_plain_text_is_always_escaped(text):
    for escaped in (join(text), tag("p", text)[3:-4], tag("a", title=text)[10:-6]):
        assert not set("<>") & set(escaped) and '"' not in escaped


def test_parts_say_what_they_are_and_whose():
    names = {
        3: "UCL",
        10: PartName("class 2", 0),
        11: PartName("class 2", 1),
        12: PartName("50 % of the samples", 3),
    }
    assert clients([10, 11], names) == "class 2 of clients 0 and 1"
    assert clients([12], names) == "50 % of the samples of client 3 (UCL)"
    assert clients([2, 12], names) == "client 2 and 50 % of the samples of client 3 (UCL)"
