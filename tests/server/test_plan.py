"""Who takes part in a round: pure planning, without a federation."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.randomness import numpy_generator
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF, PUFSettings
from fedunlearn.strategies.retrain import Retrain
from tests.server.tiny import settings

CLIENTS = st.sets(st.integers(0, 19))


@st.composite
def situations(draw):
    to_forget = draw(CLIENTS)
    return Situation(
        round=draw(st.integers(1, 50)),
        num_clients=20,
        slots=draw(st.integers(1, 20)),
        gone=frozenset(draw(CLIENTS) | to_forget),
        to_forget=tuple(sorted(to_forget)),
        seed=draw(st.integers(0, 3)),
        absent=frozenset(draw(CLIENTS)),
    )


@given(situations(), CLIENTS, st.integers(0, 25))
def test_a_draw_is_ascending_distinct_of_the_asked_size_and_without_who_is_gone(situation, without, slots):
    drawn = situation.sample(slots, also_without=without)
    free = set(range(20)) - situation.gone - situation.absent - without
    assert list(drawn) == sorted(set(drawn))
    assert set(drawn) <= free
    assert len(drawn) == min(slots, len(free))
    assert all(type(client) is int for client in drawn), "plans are JSON"


@given(situations())
def test_a_draw_depends_on_seed_round_and_pool_and_on_nothing_else(situation):
    other = replace(situation, to_forget=())
    assert situation.sample(7) == situation.sample(7) == other.sample(7)
    moved = replace(situation, gone=frozenset(), to_forget=())
    assert situation.sample(7) == moved.sample(7, also_without=situation.gone)


@pytest.mark.parametrize("num_clients", [20, 300, 12_000, 100_000])
@pytest.mark.parametrize("slots", [0, 1, 7, 250, 19_999])
@pytest.mark.parametrize("gone", [(), (0,), (3, 4, 5, 19), (0, 1, 7, 18, 19)])
def test_the_draw_is_one_from_the_list_of_all_who_may_train(num_clients, slots, gone):
    last = num_clients - 1
    gone = frozenset({*gone, *(last - k for k in gone)})
    situation = Situation(6, num_clients, slots, gone, (), 2)
    pool = [client for client in range(num_clients) if client not in gone]
    expected = pool
    if slots < len(pool):
        generator = numpy_generator(2, "sampling", 6)
        expected = sorted(generator.choice(pool, size=slots, replace=False).tolist())
    assert situation.sample(slots) == tuple(expected)


def test_rounds_and_seeds_draw_differently():
    draws = {
        Situation(round, 20, 10, frozenset(), (), seed).sample(10)
        for round in range(1, 9)
        for seed in range(3)
    }
    assert len(draws) == 24


def test_every_client_gets_its_turn():
    drawn = [k for t in range(1, 200) for k in Situation(t, 20, 10, frozenset({4}), (), 1).sample(10)]
    share = {k: drawn.count(k) / 199 for k in range(20)}
    assert share.pop(4) == 0
    assert all(0.4 < s < 0.66 for s in share.values()), "10 of 19"


@given(situations())
def test_special_is_a_round_of_the_forgotten_alone(situation):
    plan = PUF(settings(), PUFSettings(mode="special")).plan(situation)
    if situation.to_forget:
        assert (plan.train, plan.forget) == ((), situation.to_forget)
    else:
        assert (plan.train, plan.forget) == (situation.sample(situation.slots), ())


@given(situations())
def test_regular_gives_the_forgotten_their_slots_and_samples_the_rest(situation):
    plan = PUF(settings(), PUFSettings(mode="regular")).plan(situation)
    assert plan.forget == situation.to_forget
    free = 20 - len(situation.gone | situation.absent)
    assert len(plan.train) == min(free, max(situation.slots - len(situation.to_forget), 0))
    assert set(plan.train).isdisjoint(situation.gone)


@pytest.mark.parametrize(("slots", "retained"), [(1, 0), (3, 0), (4, 1), (6, 3), (20, 17)])
def test_regular_with_three_to_forget(slots, retained):
    situation = Situation(5, 20, slots, frozenset({1, 2, 3}), (1, 2, 3), 0)
    plan = PUF(settings(), PUFSettings(mode="regular")).plan(situation)
    assert (len(plan.train), plan.forget) == (retained, (1, 2, 3))


@given(situations())
def test_natural_only_leaves_out(situation):
    plan = Natural(settings()).plan(situation)
    assert (plan.train, plan.forget) == (situation.sample(situation.slots), ())


@given(situations())
def test_retraining_samples_as_recovery_does(situation):
    """Oracle and recovery draw by the same rule, from the same pool: the same clients."""
    excluded = situation.gone
    everybody = settings(num_clients=situation.num_clients)
    oracle = Retrain(everybody, excluded=excluded).plan(replace(situation, gone=frozenset(), to_forget=()))
    recovering = PUF(settings()).plan(replace(situation, to_forget=()))
    assert oracle == recovering


def test_retraining_without_exclusions_is_the_original_federation():
    situation = Situation(3, 20, 8, frozenset(), (), 0)
    assert Retrain(settings()).plan(situation) == situation.fedavg()


@given(situations(), st.lists(st.text(max_size=3), max_size=3))
def test_a_plan_survives_json(situation, requests):
    plan = replace(PUF(settings(), PUFSettings(mode="regular")).plan(situation), requests=tuple(requests))
    assert RoundPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(("share", "slots"), [(1.0, 6), (0.5, 3), (0.4, 2), (0.01, 1)])
def test_slots_are_a_share_of_all_clients_and_never_none(share, slots):
    assert settings(participation=share).slots == slots


def test_a_plan_without_stored_updates_is_what_it_always_was():
    """Plans of earlier runs are read, and those of simulations written, as before."""
    plan = RoundPlan(3, (1, 2), (5,), ("r1",))
    assert plan.to_dict() == {"round": 3, "train": [1, 2], "forget": [5], "requests": ["r1"]}
    assert RoundPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_who_is_forgotten_by_a_stored_update_is_not_asked():
    plan = RoundPlan(3, (), (5, 7, 9), ("r1",), {7: 2})
    assert plan.asked_to_forget == (5, 9)
    assert RoundPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
