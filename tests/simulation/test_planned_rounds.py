"""Counting rounds by stretches gives what going through them gives, and costs the same for any number of them."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn import workspace
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.plans_ahead import plans
from fedunlearn.simulation import forecast as forecasting
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.evaluation_forecast import evaluated_in_rounds
from fedunlearn.simulation.planned_rounds import SAMPLED, kept, kept_or_multiple, planned, stretches
from tests.e2e.tiny import tiny
from tests.simulation.scripted import TARGETS, TIMELINE


@st.composite
def a_branch(draw):
    first = draw(st.integers(0, 20))
    last = first + draw(st.integers(0, 40))
    arrivals = draw(st.lists(st.integers(first, last + 3), max_size=5))
    return Branch(
        name="b",
        kind="method",
        label="b",
        seed=1,
        training_seed=1,
        first_round=first,
        last_round=last,
        keep_from=draw(st.integers(0, last + 3)),
        keep=frozenset(draw(st.lists(st.integers(0, last + 3), max_size=6))),
        requests=tuple(ForgetRequest(f"r{n}", (n,), at) for n, at in enumerate(arrivals)),
    )


@given(a_branch())
def test_stretches_are_all_rounds_in_order_and_end_where_a_request_is_served(branch):
    served = {r.at_round + 1 for r in branch.requests}
    found = [list(range(first, last + 1)) for first, last in stretches(branch, served)]
    assert all(found)
    assert [r for rounds in found for r in rounds] == list(
        range(branch.first_round + 1, branch.last_round + 1)
    )
    for rounds in found:
        assert not served & set(rounds) or len(rounds) == 1


@given(a_branch(), st.integers(0, 30), st.integers(1, 7))
def test_kept_rounds_are_counted_as_by_going_through_them(branch, first, every):
    rounds = range(first, branch.last_round + 1)
    assert kept(branch, first) == sum(branch.keeps(r) for r in rounds)
    assert kept_or_multiple(branch, first, every) == sum(branch.keeps(r) or r % every == 0 for r in rounds)


@pytest.mark.parametrize("experiment", [TARGETS, TIMELINE, tiny("federation.participation=0.5")])
def test_plans_stand_for_all_rounds(experiment):
    for branch in branches(experiment, 1):
        each = list(plans(experiment, branch))
        some = list(planned(experiment, branch))
        assert sum(rounds for _, rounds in some) == len(each) == branch.rounds
        for count in (lambda p: len(p.train), lambda p: len(p.forget), lambda p: sum(p.train)):
            assert sum(rounds * count(plan) for plan, rounds in some) == sum(map(count, each)), branch.name


def test_of_many_rounds_with_drawn_clients_some_are_planned():
    experiment = tiny("federation.participation=0.5", "train.rounds=5000")
    original = branches(experiment, 1)[0]
    some = list(planned(experiment, original))
    assert len(some) == SAMPLED
    assert sum(rounds for _, rounds in some) == 5000
    sizes = workspace.data_of(experiment, 1).clients.sizes
    (found, *_) = forecasting.forecast(experiment).branches
    assert found.client_epochs == 5000 * 2
    assert found.examples == pytest.approx(5000 * 2 * np.mean(sizes), rel=0.1)


@pytest.mark.parametrize(
    "huge",
    [
        ["train.rounds=1000000"],
        ["train.rounds=1000000", "federation.participation=0.5"],
        ["recover.max-rounds=1000000"],
        ["train.rounds=2000000000"],
    ],
)
def test_a_million_rounds_are_forecast_in_no_time_and_no_memory(huge, monkeypatch):
    monkeypatch.setattr(forecasting, "_probe", lambda experiment: 1e-3)
    monkeypatch.setattr(forecasting, "probe_evaluation", lambda experiment: 1e-4)
    experiment = tiny(*huge)
    workspace.data_of(experiment, 1)
    forecasting.forecast(tiny("train.rounds=7"))
    began = time.process_time()
    tracemalloc.start()
    plan = forecasting.forecast(experiment)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 2
    assert peak < 4e6
    rounds = max(experiment.train.rounds, experiment.recover.max_rounds)
    assert max(b.rounds for b in plan.branches) >= rounds
    assert plan.seconds > 1e-3 * rounds


def test_evaluation_after_rounds_is_counted_as_by_going_through_them():
    experiment = tiny("train.rounds=37", "recover.max-rounds=11")
    data = workspace.data_of(experiment, 1)
    for branch in branches(experiment, 1):
        rounds = range(branch.first_round + 1 if branch.first_round else 0, branch.last_round + 1)
        every = max(1, branch.last_round // 10)
        whole = [r for r in rounds if branch.keeps(r) or r % every == 0]
        expected = len(rounds) * (len(data.validation_labels) + len(data.test_labels))
        assert evaluated_in_rounds(branch, data) == expected + len(whole) * len(data.train_labels)


def test_the_data_of_each_seed_are_loaded_once(monkeypatch):
    loaded = []
    load = workspace._load_data.__wrapped__

    def counted(data, num_clients, seed, *others):
        loaded.append(seed)
        return load(data, num_clients, seed, *others)

    monkeypatch.setattr(workspace, "_load_data", counted)
    monkeypatch.setattr(forecasting, "_probe", lambda experiment: 1e-3)
    monkeypatch.setattr(forecasting, "probe_evaluation", lambda experiment: 1e-4)
    seeds = [11, 12, 13, 14, 15]
    forecasting.forecast(tiny(f"seeds={seeds}"))
    assert sorted(set(loaded)) == seeds
    assert all(loaded.count(seed) == 1 for seed in seeds[1:]), "the first is also that of the model"
