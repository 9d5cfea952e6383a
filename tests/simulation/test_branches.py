"""Which federations an experiment consists of, when each ends, and that whatever is asked of one is kept."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn import config
from fedunlearn.config import FloorConfig, ForgetConfig, MethodConfig
from fedunlearn.config.targets import DrawnTargets
from fedunlearn.errors import ConfigError
from fedunlearn.randomness import derive_seed
from fedunlearn.server.branch import ForgetRequest
from fedunlearn.simulation.branches import branches, floor_seed, moments
from fedunlearn.simulation.schedule import Schedule
from fedunlearn.simulation.scoring import SeedScoring
from tests.e2e.tiny import TIMELINE, tiny
from tests.profiles import many

FIVE = "federation.num-clients=5"


def by_name(experiment, seed=1):
    return {b.name: b for b in branches(experiment, seed)}


# -- target sets ----------------------------------------------------------------------------------------------


def test_listed_targets_are_one_moment_each_at_the_end_of_training():
    found = moments(tiny(FIVE, "targets=[[4], [3, 0]]"), 1)
    assert [(m.index, m.at_round, m.forgotten) for m in found] == [(0, 3, (4,)), (1, 3, (0, 3))]
    assert [m.requests for m in found] == [
        (ForgetRequest("target-0", (4,), 3),),
        (ForgetRequest("target-1", (0, 3), 3),),
    ]


def test_each_is_every_client_in_turn():
    assert [m.forgotten for m in moments(tiny('targets="each"'), 1)] == [(0,), (1,), (2,), (3,)]


def test_drawn_targets_differ_by_seed_and_not_by_when_they_are_asked():
    experiment = tiny(FIVE, "targets={draw=2, size=2}", "seeds=[1, 2, 3, 4, 5]")
    drawn = {seed: [m.forgotten for m in moments(experiment, seed)] for seed in experiment.seeds}
    assert len({str(sets) for sets in drawn.values()}) > 1
    for seed, sets in drawn.items():
        assert sets == [m.forgotten for m in moments(experiment, seed)]
        assert len({k for clients in sets for k in clients}) == 4, "two sets of two that share nobody"


def test_the_branches_of_two_targets():
    experiment = tiny(FIVE, "targets=[[4], [3, 0]]", "recover.max-rounds=6")
    found = by_name(experiment, seed=7)
    assert list(found) == [
        "original-s7",
        "retrain-0-s7",
        "floor-0-s7",
        "retrain-1-s7",
        "floor-1-s7",
        "puf-special-2-0-s7",
        "puf-special-2-1-s7",
        "natural-0-s7",
        "natural-1-s7",
    ]
    original, retrain = found["original-s7"], found["retrain-1-s7"]
    floor, method = found["floor-1-s7"], found["puf-special-2-1-s7"]
    assert (original.last_round, original.watched, original.forget) == (3, (0, 3, 4), ())
    assert [original.keeps(r) for r in range(4)] == [False, False, False, True]
    assert (retrain.excluded, retrain.forget, retrain.last_round) == ((0, 3), (0, 3), 9)
    assert [retrain.keeps(r) for r in (0, 2, 3, 9)] == [False, False, True, True]
    assert (retrain.training_seed, retrain.seed, retrain.label) == (7, 7, "retrain")
    assert floor == replace(
        retrain, name="floor-1-s7", kind="floor", label="floor", training_seed=floor_seed(7)
    )
    assert (method.fork_from, method.first_round, method.last_round, method.rounds) == (
        "original-s7",
        3,
        9,
        6,
    )
    assert (method.method, method.forget) == (experiment.methods[0], (0, 3))
    assert (method.oracles, method.stop_when_recovered) == (("retrain-1-s7",), False)
    assert all(method.keeps(r) for r in range(3, 10))
    natural = found["natural-1-s7"]
    assert natural == replace(method, name="natural-1-s7", label="natural", method=experiment.methods[1]), (
        "forks alike"
    )


# -- a timeline -----------------------------------------------------------------------------------------------

OVERLAPPING = tiny(
    "federation.num-clients=8",
    "train.rounds=20",
    "recover.max-rounds=6",
    text=TIMELINE
    + """
[[forget]]
clients = [6, 5]
at-round = 2
[[forget]]
clients = [4]
at-round = 17
""",
)


def test_requests_of_one_round_are_one_moment_and_forgetting_adds_up():
    assert [(m.index, m.at_round, m.forgotten) for m in moments(OVERLAPPING, 1)] == [
        (0, 2, (0, 5, 6)),
        (1, 3, (0, 2, 5, 6)),
        (2, 17, (0, 2, 4, 5, 6)),
    ]
    assert [[r.id for r in m.requests] for m in moments(OVERLAPPING, 1)] == [
        ["request-1", "request-3"],
        ["request-2"],
        ["request-4"],
    ]
    assert moments(OVERLAPPING, 1)[0].requests[1].clients == (5, 6), "ascending, as in the ledger"


def test_requests_may_be_written_in_any_order():
    backwards = replace(OVERLAPPING, forget=OVERLAPPING.forget[::-1])
    assert [(m.at_round, m.forgotten) for m in moments(backwards, 1)] == [
        (m.at_round, m.forgotten) for m in moments(OVERLAPPING, 1)
    ]


def test_the_branches_of_a_timeline():
    found = by_name(OVERLAPPING)
    assert list(found) == [
        "original-s1",
        *(f"{kind}-{i}-s1" for i in range(3) for kind in ("retrain", "floor")),
        "puf-special-2-timeline-s1",
        "natural-timeline-s1",
    ]
    original, method = found["original-s1"], found["natural-timeline-s1"]
    assert [r for r in range(21) if original.keeps(r)] == [2, 3, 17, 20]
    assert (original.watched, original.last_round) == ((0, 2, 4, 5, 6), 20)
    # An oracle that a later one takes over from is needed to the end of training and to its own cap.
    assert [found[f"retrain-{i}-s1"].last_round for i in range(3)] == [20, 20, 23]
    assert [found[f"floor-{i}-s1"].last_round for i in range(3)] == [20, 20, 23]
    assert [found[f"retrain-{i}-s1"].keep_from for i in range(3)] == [2, 3, 17]
    assert [found[f"retrain-{i}-s1"].excluded for i in range(3)] == [
        m.forgotten for m in moments(OVERLAPPING, 1)
    ]
    assert (method.first_round, method.last_round, method.keep_from) == (2, 23, 2)
    assert (method.fork_from, method.forget) == ("original-s1", (0, 2, 4, 5, 6))
    assert [r.id for r in method.requests] == ["request-1", "request-3", "request-2", "request-4"]
    assert method.oracles == ("retrain-0-s1", "retrain-1-s1", "retrain-2-s1")
    assert method.stop_when_recovered


def test_a_cap_beyond_the_next_request_is_followed_to_its_end():
    late = replace(OVERLAPPING, recover=replace(OVERLAPPING.recover, max_rounds=19))
    found = by_name(late)
    assert [found[f"retrain-{i}-s1"].last_round for i in range(3)] == [21, 22, 36]


def test_a_short_recovery_does_not_end_training_early():
    early = replace(OVERLAPPING, forget=OVERLAPPING.forget[:1])
    assert {b.last_round for b in branches(early, 1)} == {20}


@pytest.mark.parametrize("label", ["original", "retrain", "floor"])
def test_no_method_may_take_the_name_of_another_branch(label):
    with pytest.raises(ConfigError, match=rf'method\[2\].label = "{label}"'):
        tiny(f"method[2].label={label}")


# -- the second seed ------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64))
def test_the_floors_seed_is_another_one_that_fits_a_message(seed):
    derived = floor_seed(seed)
    assert 0 <= derived < 2**63
    assert derived != seed
    assert derived == floor_seed(seed) != floor_seed(seed + 1)


def test_the_first_further_retraining_is_the_one_there_always_was():
    assert floor_seed(7) == floor_seed(7, 0) == derive_seed(7, "floor") >> 1
    assert [floor_seed(7, number) for number in (1, 2)] == [derive_seed(7, "floor", n) >> 1 for n in (1, 2)]
    one, three = (
        by_name(tiny(f"floor.retrainings={n}", "targets=[[4], [3, 0]]", FIVE), seed=7) for n in (1, 3)
    )
    assert all(three[name] == branch for name, branch in one.items())
    assert three.keys() - one.keys() == {"floor-0-s7-2", "floor-0-s7-3", "floor-1-s7-2", "floor-1-s7-3"}
    last = three["floor-1-s7-3"]
    assert last == replace(three["floor-1-s7"], name="floor-1-s7-3", training_seed=floor_seed(7, 2))
    assert last.excluded == (0, 3)


@given(st.integers(0, 2**64))
def test_every_further_retraining_has_a_seed_of_its_own(seed):
    seeds = [floor_seed(seed, number) for number in range(5)]
    assert len({*seeds, seed}) == 6


# -- every experiment there could be --------------------------------------------------------------------------

CLIENTS = 6
METHODS = [
    MethodConfig.of(name="puf"),
    MethodConfig.of(name="puf", mode="regular"),
    MethodConfig.of(name="natural"),
    MethodConfig.of(name="natural", label="floor-0"),
    MethodConfig.of(name="natural", label="floor-0-s1-2"),
    MethodConfig.of(name="puf", label="original-s1"),
]


@st.composite
def experiments(draw):
    """Draw a small experiment that the configuration accepts."""
    rounds = draw(st.integers(1, 7))
    base = tiny(f"federation.num-clients={CLIENTS}", f"train.rounds={rounds}")
    some = st.sets(st.integers(0, CLIENTS - 1), min_size=1, max_size=3)
    if draw(st.booleans()):
        listed = st.lists(some, min_size=1, max_size=3, unique_by=lambda s: tuple(sorted(s)))
        listed = listed.map(lambda sets: tuple(map(tuple, sets)))
        drawn = st.builds(DrawnTargets, draw=st.integers(1, 3), size=st.integers(1, 2))
        base = replace(base, targets=draw(st.one_of(listed, st.just("each"), drawn)))
    else:
        order = draw(st.permutations(range(CLIENTS)))
        sizes = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3).filter(lambda s: sum(s) < CLIENTS))
        requests, taken = [], 0
        for size in sizes:
            clients = tuple(order[taken : taken + size])
            requests.append(ForgetConfig(clients=clients, at_round=draw(st.integers(1, rounds))))
            taken += size
        base = replace(base, targets=None, forget=tuple(requests))
    found = replace(
        base,
        floor=FloorConfig(given_retrainings=draw(st.integers(1, 3))),
        methods=tuple(draw(st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True))),
        recover=replace(base.recover, max_rounds=draw(st.integers(1, 6))),
    )
    return config.loads(config.to_toml(found))


@given(experiments(), st.integers(0, 12))
def test_every_branch_comes_after_those_it_needs_and_forks_from_a_round_that_is_kept(experiment, seed):
    done = {}
    for branch in branches(experiment, seed):
        assert branch.name not in done, "names are unique"
        for oracle in branch.oracles:
            assert done[oracle].kind == "retrain"
        if branch.fork_from is not None:
            parent = done[branch.fork_from]
            assert parent.first_round < branch.first_round <= parent.last_round
            assert parent.keeps(branch.first_round)
        assert branch.first_round < branch.last_round
        assert branch.keeps(branch.last_round)
        done[branch.name] = branch


@given(experiments())
def test_names_differ_over_seeds_too(experiment):
    names = [b.name for seed in (1, 11, 111) for b in branches(experiment, seed)]
    assert len(set(names)) == len(names)


@given(experiments())
def test_there_is_an_oracle_for_everything_that_can_be_judged(experiment):
    """Without exactly those forgotten so far, up to the cap of each request, and to the authors' round."""
    found = by_name(experiment)
    for branch in found.values():
        if branch.kind != "method":
            continue
        gone = set()
        caps = {}
        for request in branch.requests:
            gone |= set(request.clients)
            caps[request.at_round] = frozenset(gone)  # the last of a round: all of them together
        oracles = {frozenset(found[name].excluded): found[name] for name in branch.oracles}
        assert set(oracles) == set(caps.values())
        for at_round, forgotten in caps.items():
            oracle = oracles[forgotten]
            assert oracle.last_round >= max(at_round + experiment.recover.max_rounds, experiment.train.rounds)
        assert branch.last_round >= max(caps) + experiment.recover.max_rounds


class Asked(SeedScoring):
    """Scoring that only notes which models it would measure."""

    def __init__(self, experiment, records):
        self._schedule = Schedule(experiment, 1, records)
        self.asked = []

    def _row(self, branch, moment, request, at, round, diverged, failed):
        oracles = [self._schedule.retrain(moment), *self._schedule.floors(moment)]
        self.asked += [(branch, at, round)] * (not (diverged or failed)) + [
            (oracle, at, round) for oracle in oracles
        ]
        return SimpleNamespace(at=at, kind=branch.kind)


ATTEMPTS = 3
"""Rounds in which a forgetting client fails before its request is given up."""


@st.composite
def finished(draw):
    """Draw an experiment and how its requests may have ended."""
    experiment = draw(experiments())
    records = {}
    for branch in branches(experiment, 1):
        asked = sorted({r.at_round for r in branch.requests})
        # Once one has failed, no oracle fits what is forgotten later: a run that goes on has only failures to come.
        fine = draw(st.integers(0, len(asked))) if asked and draw(st.integers(0, 4)) == 0 else len(asked)
        ends = {}
        for place, at_round in enumerate(asked):
            if place < fine:
                ends[at_round] = draw(
                    forgets(at_round, asked[place + 1 : fine], experiment.recover.max_rounds)
                )
            else:
                ends[at_round] = fails(at_round, branch.last_round)
        requests = [{"id": r.id, **ends[r.at_round]} for r in branch.requests]
        last = branch.last_round
        if branch.stop_when_recovered and all(r["ended_round"] is not None for r in requests):
            last = max([experiment.train.rounds, *(r["ended_round"] for r in requests)])
        if requests and draw(st.booleans()):
            diverged = draw(st.integers(branch.first_round + 1, last))
            requests, last = [diverges(r, diverged) for r in requests], diverged - 1
        records[branch.name] = {"requests": requests, "last_round": last}
    return experiment, records


def forgets(at_round, later, cap):
    """Return ends of a request that is unlearned at once, of later ones that are unlearned as well."""

    def end(recovered):
        if recovered is not None:
            return ended(at_round + 1, "recovered", recovered)
        if horizon == at_round + cap:
            return ended(at_round + 1, "capped", horizon)
        return ended(at_round + 1, "superseded", horizon + 1)

    horizon = min([at_round + cap, *later])  # the next request's round is still this one's
    return (st.none() | st.integers(at_round + 1, horizon)).map(end)


def fails(at_round, last_round):
    """Return the end of a request whose clients never answer: given up, or the branch ends before that."""
    attempts = min(ATTEMPTS, last_round - at_round)
    if attempts < ATTEMPTS:
        return ended(None, None, None, attempts)
    return ended(None, "failed", at_round + ATTEMPTS, attempts)


def ended(unlearned, outcome, round, attempts=0):
    return {"unlearned_round": unlearned, "outcome": outcome, "ended_round": round, "attempts": attempts}


def diverges(request, round):
    """Return a request as a branch leaves it whose weights are no numbers from a round on."""
    if request["ended_round"] is not None and request["ended_round"] < round:
        return request
    unlearned = request["unlearned_round"]
    lost = unlearned is not None and unlearned >= round
    return request | {
        "outcome": "diverged",
        "ended_round": round,
        "unlearned_round": None if lost else unlearned,
        "reason": "NaN or Inf",
    }


@many
@given(finished())
def test_every_model_that_scoring_asks_for_was_computed_and_is_kept(case):
    experiment, records = case
    scoring = Asked(experiment, records)
    rows = list(scoring.rows())
    assert {"request", "unlearned"} <= {row.at for row in rows}
    if experiment.branching:  # nothing that was asked is left out, whatever became of it
        lines = [row for row in rows if row.at == "cap" and row.kind == "method"]
        assert len(lines) == len(experiment.methods) * len(moments(experiment, 1))
    for branch, at, round in scoring.asked:
        where = f"{branch.name}, {at}, round {round}"
        assert branch.keeps(round), where
        assert branch.first_round <= round <= records[branch.name]["last_round"], where
