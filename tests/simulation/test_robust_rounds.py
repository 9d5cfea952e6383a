"""A robust rule has the clients that it needs in every round of every branch, or the experiment is refused."""

import pytest

from fedunlearn.errors import ConfigError
from fedunlearn.simulation.forecast import forecast
from fedunlearn.simulation.robust_rounds import check_rounds
from tests.e2e.tiny import TIMELINE, TINY, run, tiny

REMEDY = 'raise federation.num-clients, forget fewer, or write "mean"'


def told(experiment):
    with pytest.raises(ConfigError) as caught:
        check_rounds(experiment)
    return str(caught.value)


def of(rule, clients, *overrides, text=TINY):
    settings = (f"federation.aggregation={rule}", f"federation.num-clients={clients}")
    return tiny(*settings, *overrides, text=text)


def test_the_retained_clients_are_counted_and_not_all():
    assert told(of("krum", 8, "targets=[[2, 3]]")) == (
        'federation.aggregation = "krum" (experiment tiny): needs at least 7 clients in a round to withstand 2, and '
        f"round 1 of retrain-0-s1 has 6; {REMEDY}"
    )


@pytest.mark.parametrize("ask", [forecast, lambda experiment: run(experiment, "nowhere")])
def test_check_and_run_refuse_it_before_anything_else(ask):
    with pytest.raises(ConfigError, match="round 1 of retrain-0-s1 has 6"):
        ask(of("multi-krum", 8, "targets=[[2, 3]]"))


@pytest.mark.parametrize(
    ("rule", "clients", "overrides"),
    [
        ("krum", 9, ["targets=[[2, 3]]"]),  # 7 remain
        ("krum", 7, ["targets=[[2, 3]]"]),  # 5 remain, of whom one is hostile
        ("trimmed-mean", 8, ["targets=[[2, 3]]"]),  # 6 remain, two of them hostile
        ("median", 4, ["targets=[[1]]"]),
        ("mean", 3, ["targets=[[1]]"]),
    ],
)
def test_enough_clients_are_enough(rule, clients, overrides):
    check_rounds(of(rule, clients, *overrides))


def test_where_a_smaller_round_is_enough_a_larger_one_that_is_not_is_still_found():
    """Of 7 clients 5 are enough for Krum, and 6 are not."""
    why = told(of("krum", 7, "targets=[[2, 3], [1]]"))
    assert "and round 1 of retrain-1-s1 has 6;" in why


def test_of_a_timeline_the_last_request_decides():
    why = told(of("median", 4, text=TIMELINE))
    assert "needs at least 3 clients in a round, and round 1 of retrain-1-s1 has 2" in why


def test_rounds_of_a_method_count_where_no_retrained_model_has_fewer():
    """PUF's regular round draws the retained beside those who are forgotten: of 3 slots there are 2 left to them."""
    half = ("federation.participation=0.5", "targets=[[1]]")
    regular = 'method=[{name="puf", mode="regular"}]'
    check_rounds(of("median", 6, *half, 'method=[{name="puf", mode="special"}]'))
    why = told(of("median", 6, *half, regular))
    assert "and round 4 of puf-regular-20-0-s1 has 2" in why
