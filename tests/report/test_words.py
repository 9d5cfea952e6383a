"""Numbers as a reader sees them say what the number is."""

import doctest
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.catalogue import MEASURES
from fedunlearn.html import markup
from fedunlearn.html.markup import join, tag
from fedunlearn.report import words
from fedunlearn.report.words import (
    METRICS,
    PartName,
    clients,
    gap_unit,
    magnitude,
    measured,
    metric_order,
    metric_title,
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
    assert number(nothing) == magnitude(nothing, "B") == measured("test_loss", nothing) == "–"


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


def test_every_measure_has_a_title_and_its_unit_decides_its_digits():
    assert set(METRICS) == set(MEASURES)
    for name, measure in MEASURES.items():
        assert measured(name, 12.3456) == ("12.3" if measure.unit in ("%", "mm") else "12.346")
        assert gap_unit(name) == {"%": "points", "mm": "mm"}.get(measure.unit, "")


def test_a_distance_is_called_one_wherever_it_is_read():
    """0.002 is 1 minus the cosine."""
    assert metric_title("cosine_to_retrain") == "cosine distance to retrain"
    assert MEASURES["cosine_to_retrain"].description.startswith("cosine distance to retrain")


@given(st.lists(st.sampled_from([*METRICS, "something_new", "another"])))
def test_metric_order_keeps_every_name_once(names):
    ordered = metric_order(names)
    assert sorted(ordered) == sorted(set(names))
    known = [name for name in ordered if name in METRICS]
    assert ordered[: len(known)] == known == sorted(known, key=list(METRICS).index)


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
