"""Who is served, who waits and who is turned away when a round of a live federation is planned."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import RequestsConfig
from fedunlearn.live.triage import Federation, OpenRequest, triage

NUM = 6
CLIENTS = st.frozensets(st.integers(0, NUM - 1), min_size=1, max_size=3)
RULES = st.builds(
    RequestsConfig,
    window=st.sampled_from([0.0, 10.0]),
    during_recovery=st.sampled_from(["wait", "join"]),
    offline=st.sampled_from(["wait", "stored", "exclude"]),
    deadline=st.sampled_from([None, 5.0, 50.0]),
)
SOME = st.frozensets(st.integers(0, NUM - 1), max_size=3)
FEDERATIONS = st.builds(
    Federation,
    num_clients=st.just(NUM),
    forgotten=SOME,
    left_out=SOME,
    unreachable=SOME,
    stored=SOME,
    recovering=st.booleans(),
    now=st.just(100.0),
).filter(lambda f: len(f.forgotten | f.left_out) < NUM)


@st.composite
def open_requests(draw):
    """Return requests in order of arrival."""
    arrivals = sorted(draw(st.lists(st.floats(0, 100), max_size=6)))
    made = []
    for number, at in enumerate(arrivals):
        held = draw(st.booleans())
        made.append(
            OpenRequest(
                id=f"r{number}",
                clients=draw(CLIENTS),
                arrived_at=at,
                waits=draw(st.booleans()),
                held=held,
                rests=held and draw(st.booleans()),
                failing=held and draw(st.booleans()),
                alone=draw(st.booleans()),
            )
        )
    return made


@given(open_requests(), FEDERATIONS, RULES)
def test_every_request_has_one_fate_at_most(requests, federation, rules):
    found = triage(requests, federation, rules)
    fates = [*found.serve, *found.ended, *found.waiting]
    assert len(fates) == len(set(fates))
    assert set(fates) <= {r.id for r in requests}
    assert list(found.serve) == [r.id for r in requests if r.id in found.serve], "in order of arrival"


@given(open_requests(), FEDERATIONS, RULES)
def test_somebody_is_always_left_to_learn_from(requests, federation, rules):
    found = triage(requests, federation, rules)
    assert len(found.gone) < NUM
    assert found.gone >= federation.forgotten | federation.left_out


@given(open_requests(), FEDERATIONS, RULES)
def test_whoever_asked_does_not_train_meanwhile_unless_turned_away(requests, federation, rules):
    found = triage(requests, federation, rules)
    for r in requests:
        if found.ended.get(r.id, ("",))[0] != "refused":
            assert r.clients <= found.gone


@given(open_requests(), FEDERATIONS, RULES)
def test_only_who_can_be_asked_or_stood_in_for_is_served(requests, federation, rules):
    found = triage(requests, federation, rules)
    for r in requests:
        if r.id in found.serve:
            assert (r.clients & federation.unreachable) - federation.forgotten <= federation.stored


@given(open_requests(), FEDERATIONS, RULES)
def test_a_duplicate_is_what_has_been_forgotten_and_nothing_else(requests, federation, rules):
    found = triage(requests, federation, rules)
    duplicates = {id_ for id_, (state, _) in found.ended.items() if state == "duplicate"}
    assert duplicates == {r.id for r in requests if r.clients <= federation.forgotten}


@given(open_requests(), FEDERATIONS, RULES)
def test_who_comes_later_takes_nothing_from_who_came_first(requests, federation, rules):
    found = triage(requests, federation, rules)
    for number in range(len(requests)):
        earlier = triage(requests[:number], federation, rules)
        ids = {r.id for r in requests[:number]}
        assert {id_: fate for id_, fate in found.ended.items() if id_ in ids} == earlier.ended
        assert [id_ for id_ in found.waiting if id_ in ids] == list(earlier.waiting)
        assert earlier.gone <= found.gone


@given(open_requests(), FEDERATIONS, RULES)
def test_nothing_is_served_during_a_recovery_that_is_to_be_waited_for(requests, federation, rules):
    rules = replace(rules, during_recovery="wait")
    assert triage(requests, replace(federation, recovering=True), rules).serve == ()


@given(open_requests(), FEDERATIONS, RULES)
def test_with_time_and_everybody_there_each_request_is_served_or_ended_or_the_same_as_another(
    requests, federation, rules
):
    """Nothing is lost: planned again and again, a federation comes to the end of its open requests."""
    federation = replace(federation, unreachable=frozenset(), recovering=False, now=1e6)
    rules = replace(rules, deadline=None)
    left = [replace(r, rests=False, failing=False) for r in requests]
    for _ in range(len(requests) + 1):
        found = triage(left, federation, rules)
        served = [r for r in left if r.id in found.serve]
        forgotten = federation.forgotten.union(*(r.clients for r in served))
        federation = replace(federation, forgotten=forgotten)
        left = [r for r in left if r.id not in found.serve and r.id not in found.ended]
    assert left == []


# -- one rule at a time ------------------------------------------------------------------------------------

HERE = Federation(num_clients=NUM, now=100.0)


def request(id_="r", clients=(1,), at=0.0, **fields):
    return OpenRequest(id_, frozenset(clients), at, **fields)


def test_requests_within_a_window_are_served_together():
    rules = RequestsConfig(window=10.0)
    both = [request("a", (1,), at=91.0), request("b", (2,), at=99.0)]
    assert triage(both, HERE, rules).serve == ()
    assert triage(both, replace(HERE, now=101.0), rules).serve == ("a", "b")


@pytest.mark.parametrize(("during", "served"), [("wait", ()), ("join", ("r",))])
def test_during_a_recovery(during, served):
    found = triage([request()], replace(HERE, recovering=True), RequestsConfig(during_recovery=during))
    assert found.serve == served
    assert 1 in found.gone


def test_one_that_is_the_same_as_an_earlier_open_one_is_left_alone():
    found = triage([request("a", (1, 2)), request("b", (2,))], HERE, RequestsConfig())
    assert (found.serve, found.ended, found.waiting) == (("a",), {}, ())


def test_it_is_served_when_the_earlier_one_has_gone():
    assert triage([request("b", (2,))], HERE, RequestsConfig()).serve == ("b",)


def test_one_that_shares_a_client_with_two_others_is_served_with_them():
    three = [request("a", (1,)), request("b", (2,)), request("c", (1, 2))]
    assert triage(three, HERE, RequestsConfig()).serve == ("a", "b", "c")


def test_the_last_ones_are_refused_in_the_order_of_arrival():
    everybody = [request(f"r{k}", (k,), at=float(k)) for k in range(NUM)]
    found = triage(everybody, HERE, RequestsConfig())
    assert found.serve == ("r0", "r1", "r2", "r3", "r4")
    assert found.ended == {"r5": ("refused", "nobody would be left to learn from")}


def test_one_that_names_too_many_does_not_keep_a_smaller_one_from_being_served():
    found = triage([request("all", range(NUM)), request("one", (1,))], HERE, RequestsConfig())
    assert found.serve == ("one",)
    assert found.ended["all"][0] == "refused"


AWAY = replace(HERE, unreachable=frozenset({1}))


def test_who_is_away_waits_and_holds_up_nobody():
    found = triage([request("away", (1, 3)), request("here", (2,))], AWAY, RequestsConfig())
    assert (found.serve, found.waiting) == (("here",), ("away",))
    assert {1, 3} <= found.gone
    again = triage([request("away", (1, 3), waits=True)], AWAY, RequestsConfig())
    assert again.waiting == ()


@pytest.mark.parametrize(("deadline", "fate"), [(99.0, {"r": "excluded"}), (101.0, {})])
def test_the_deadline(deadline, fate):
    found = triage([request()], AWAY, RequestsConfig(deadline=deadline))
    assert {id_: state for id_, (state, _) in found.ended.items()} == fate


def test_who_is_there_is_served_after_the_deadline_too():
    assert triage([request()], HERE, RequestsConfig(deadline=1.0)).serve == ("r",)


def test_excluded_at_once_but_not_before_its_window():
    rules = RequestsConfig(offline="exclude", window=10.0)
    assert triage([request()], AWAY, rules).ended["r"][0] == "excluded"
    assert triage([request(at=95.0)], AWAY, rules).ended == {}


def test_a_stored_update_stands_in():
    rules = RequestsConfig(offline="stored", store_updates=True)
    assert triage([request()], replace(AWAY, stored=frozenset({1})), rules).serve == ("r",)
    assert triage([request()], AWAY, rules).serve == ()


def test_who_failed_is_tried_when_nobody_else_is_due_and_it_has_rested():
    failed = request("failed", (1,), held=True)
    fresh = request("fresh", (2,))
    assert triage([failed, fresh], HERE, RequestsConfig()).serve == ("fresh",)
    assert triage([failed], HERE, RequestsConfig()).serve == ("failed",)
    assert triage([replace(failed, rests=True)], HERE, RequestsConfig()).serve == ()


@pytest.mark.parametrize(("offline", "deadline", "fate"), [
    ("wait", None, "served"), ("wait", 50.0, "excluded"), ("exclude", None, "excluded"), ("stored", None, "served"),
])  # fmt: skip
def test_who_fails_again_and_again_counts_as_out_of_reach(offline, deadline, fate):
    rules = RequestsConfig(offline=offline, deadline=deadline, store_updates=True)
    found = triage([request(held=True, failing=True)], HERE, rules)
    assert ("served" if found.serve else found.ended["r"][0]) == fate


def test_those_of_a_step_that_was_rolled_back_are_served_one_by_one():
    three = [request("a", (1,), alone=True), request("b", (2,), alone=True), request("c", (3,))]
    assert triage(three, HERE, RequestsConfig()).serve == ("c",)
    assert triage(three[:2], HERE, RequestsConfig()).serve == ("a",)


def test_who_was_left_out_can_be_forgotten_later():
    """Excluded while away, or refused by the guard: a new request is served."""
    assert triage([request()], replace(HERE, left_out=frozenset({1})), RequestsConfig()).serve == ("r",)


# -- an unlearning of several rounds --------------------------------------------------------------------------

UNDER_WAY = request("a", (1, 2), under_way=True)


@pytest.mark.parametrize("during", ["wait", "join"])
@pytest.mark.parametrize("federation", [HERE, AWAY, replace(HERE, recovering=True)])
def test_it_goes_on_whatever_else_is_due_and_whoever_is_away(during, federation):
    """Who is away in the middle of it is found to fail, and waits from then on."""
    found = triage([request("first", (3,)), UNDER_WAY], federation, RequestsConfig(during_recovery=during))
    assert (found.serve, found.goes_on) == (("a",), True)
    assert found.gone == {1, 2, 3}, "who asks meanwhile does not train"
    assert found.ended == {}


def test_what_it_names_already_is_asked_for_in_vain():
    assert triage([UNDER_WAY, request("b", (1,))], AWAY, RequestsConfig(offline="exclude")).ended == {}


@pytest.mark.parametrize(
    ("changes", "federation", "rules", "goes_on"),
    [
        ({}, HERE, {}, True),
        ({"held": True, "rests": True}, HERE, {}, True),
        ({"failing": True}, HERE, {}, False),
        ({}, AWAY, {}, False),
        ({}, replace(AWAY, stored=frozenset({1})), {}, True),
        ({"held": True}, HERE, {"deadline": 50.0}, False),
        ({"held": True}, HERE, {"deadline": 1000.0}, True),
    ],
)
def test_after_a_round_in_vain_it_goes_on_if_it_can_be_tried_again_at_once(
    changes, federation, rules, goes_on
):
    waits = replace(UNDER_WAY, waits=True, **changes)
    both = [waits, request("b", (3,), under_way=True, waits=True), request("c", (4,))]
    found = triage(both, federation, RequestsConfig(**rules))
    assert found.goes_on == goes_on
    if goes_on:
        assert found.serve == ("a", "b")
    else:
        assert "c" in found.serve, "it is broken off, and the others are served as ever"
