"""An unlearning of several rounds: the same requests in each, nobody else meanwhile, and all of it or nothing."""

import json
import math
from dataclasses import replace

import pytest
import torch

from fedunlearn.errors import DivergedError
from fedunlearn.federation.answers import FORGET
from fedunlearn.runs.checkpoints import Checkpoints, account_of
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RecoveryRule, RequestProgress, RetrainReference
from fedunlearn.strategies.puf import PUF
from tests.federation.contributions import bits
from tests.server.three_rounds import ThreeRounds, by_hand
from tests.server.tiny import Federation, initial_state, only, raising, settings

EVERYONE = (0, 1, 2, 3, 4, 5)
ROUNDS = 9
STORY = [
    (EVERYONE, (), 0),
    ((0, 1, 3, 4, 5), (2,), 0),
    *[((0, 1, 3, 5), (2,), step) for step in (1, 2)],
    *[((0, 1, 3, 5), (4,), step) for step in (0, 1, 2)],
    *[((0, 1, 3, 5), (), 0)] * 2,
]
"""Client 2 asks after round 1; client 4 while that is under way, and trains no more."""
LOST = raising(OSError("lost"))


def federation(folder=None, *, requests=(("r1", (2,), 1), ("r2", (4,), 2)), fault=None, **options):
    checkpoints = None if folder is None else Checkpoints(folder, "tiny")
    made = Federation(start=initial_state(dtype=torch.float64), checkpoints=checkpoints, **options)
    if fault is not None:
        made.clients.fault = fault
    for name, clients, at_round in requests:
        made.submit(name, clients, at_round)
    return made


def check(made, story, rounds=None):
    """Check weights and state against the sums by hand."""
    states = by_hand(made.start.vector, story)
    for t in rounds or range(1, len(story) + 1):
        torch.testing.assert_close(made.weights(t), states[t][0], rtol=0, atol=1e-12)
    torch.testing.assert_close(made.strategy.drift, states[-1][1], rtol=0, atol=1e-12)
    assert made.strategy.counted == states[-1][2]


# -- a whole run -------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_sums_by_hand():
    made = federation().run(ThreeRounds, ROUNDS)
    check(made, STORY)
    assert [made.clients.of_round(t, FORGET) for t in range(1, 10)] == [[], *[[2]] * 3, *[[4]] * 3, [], []]


def test_the_life_of_requests_of_which_the_second_waits_for_the_first():
    made = federation().run(ThreeRounds, ROUNDS)
    assert made.life("r1") == [
        ("received", 1),
        ("scheduled", 2),
        ("unlearning", 2),
        ("unlearning", 3),
        ("unlearning", 4),
        ("recovering", 4),
        ("superseded", 7),
    ]
    assert made.life("r2") == [
        ("received", 2),
        ("scheduled", 5),
        ("unlearning", 5),
        ("unlearning", 6),
        ("unlearning", 7),
        ("recovering", 7),
    ]
    assert made.ledger.check_trail("tiny") == []
    records = {r.id: r.unlearned_round for r in made.ledger.requests("tiny")}
    assert records == {"r1": 4, "r2": 7}


def test_the_plans_say_which_round_of_an_unlearning_they_are():
    made = federation().run(ThreeRounds, ROUNDS)
    plans = {p.round: p.plan for p in made.ledger.plans("tiny")}
    assert [(p.get("step", 0), p.get("completes", True)) for p in plans.values()] == [
        (0, True),
        *[(0, False), (1, False), (2, True)] * 2,
        *[(0, True)] * 2,
    ]
    assert all(RoundPlan.from_dict(p).to_dict() == p for p in plans.values())
    assert plans[3]["requests"] == ["r1"]


def test_one_that_asks_nobody_is_no_different():
    made = federation().run(ThreeRounds, ROUNDS, asks=False)
    story = [(train, (), 0) for train, _, _ in STORY]
    check(made, story)
    assert made.life("r1")[-2:] == [("recovering", 4), ("superseded", 7)]
    assert made.clients.of_round(3, FORGET) == []


def test_of_a_method_of_one_round_nothing_is_new():
    made = federation().run(PUF, 4, mode="regular")
    for plan in made.ledger.plans("tiny"):
        assert plan.plan.keys() == {"round", "train", "forget", "requests"}
    assert all("steps" not in r.to_dict() and "held" not in r.to_dict() for r in made.strategy.requests)


def test_who_is_left_out_is_left_out_at_once():
    """A method that does not forget has nothing to go on with."""

    class LeavingOut(ThreeRounds):
        forgets = False

    made = federation().run(LeavingOut, 4)
    assert made.life("r1") == [("received", 1), ("scheduled", 2), ("excluded", 2)]


# -- interrupted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, ROUNDS))
def test_interrupted_after_any_round_it_ends_in_the_same_bits(tmp_path, at):
    whole = federation(tmp_path / "whole").run(ThreeRounds, ROUNDS)
    first = federation(tmp_path / "parts").run(ThreeRounds, at)
    again = federation(tmp_path / "parts", ledger=first.ledger).run(ThreeRounds, ROUNDS)
    assert bits(again.weights(ROUNDS)) == bits(whole.weights(ROUNDS))
    for t in range(1, ROUNDS + 1):
        name = f"tiny-r{t:04d}.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert again.life("r2") == whole.life("r2")


def test_the_model_from_before_is_in_the_checkpoints_of_the_rounds_between_and_in_no_other(tmp_path):
    made = federation(tmp_path).run(ThreeRounds, ROUNDS)
    for t, start in {1: None, 2: 1, 3: 1, 4: None, 5: 4, 6: 4, 7: None, 8: None}.items():
        snapshot = made.checkpoints.load(t)
        if start is None:
            assert snapshot.before is None
            assert "before" not in account_of(made.checkpoints.path(t))
            continue
        earlier = made.checkpoints.load(start)
        assert snapshot.before.round == start
        assert bits(snapshot.before.vector) == bits(earlier.vector)
        assert bits(snapshot.before.state["drift"]) == bits(earlier.state["drift"])
        assert snapshot.before.meta == {"strategy": {"counted": start}}


def test_in_the_middle_the_account_says_how_far_it_has_come(tmp_path):
    made = federation(tmp_path).run(ThreeRounds, 3)
    (account,) = account_of(made.checkpoints.path(3))["requests"]
    assert (account["steps"], account["unlearned_round"], account["outcome"]) == (2, None, None)
    assert RequestProgress.from_dict(json.loads(json.dumps(account))) == made.progress("r1")
    made = federation(tmp_path, ledger=made.ledger).run(ThreeRounds, 4)
    (account,) = account_of(made.checkpoints.path(4))["requests"]
    assert (account["steps"], account["unlearned_round"]) == (2, 4)


# -- clients that fail ------------------------------------------------------------------------------------


def test_a_round_in_which_a_client_to_forget_fails_is_done_again(tmp_path):
    fault = only(LOST, client=2, rounds=[3])
    made = federation(tmp_path, requests=[("r1", (2,), 1)], fault=fault).run(ThreeRounds, 6)
    train = (0, 1, 3, 4, 5)
    check(made, [STORY[0], STORY[1], None, (train, (2,), 1), (train, (2,), 2), (train, (), 0)])
    assert made.life("r1")[2:] == [
        ("unlearning", 2),
        ("unlearning", 3),
        ("waiting", 3),
        ("scheduled", 4),
        ("unlearning", 4),
        ("unlearning", 5),
        ("recovering", 5),
    ]
    assert (made.progress("r1").attempts, made.progress("r1").steps) == (1, 2)
    assert made.ledger.check_trail("tiny") == []


@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_so_it_is_where_the_run_is_interrupted(tmp_path, at):
    def started(folder, **options):
        fault = only(LOST, client=2, rounds=[3])
        return federation(tmp_path / folder, requests=[("r1", (2,), 1)], fault=fault, **options)

    whole = started("whole").run(ThreeRounds, 6)
    again = started("parts", ledger=started("parts").run(ThreeRounds, at).ledger).run(ThreeRounds, 6)
    assert bits(again.weights(6)) == bits(whole.weights(6))
    assert again.life("r1") == whole.life("r1")


def test_one_that_fails_for_good_leaves_the_model_from_before(tmp_path):
    """Of two that share it, the other one begins anew."""
    fault = only(LOST, client=4, rounds=range(3, 100))
    requests = [("r1", (2,), 1), ("r2", (4,), 1)]
    made = federation(tmp_path, requests=requests, fault=fault, settings=settings(max_attempts=2))
    made.run(ThreeRounds, 8)
    train = (0, 1, 3, 5)
    alone = [(train, (2,), step) for step in (0, 1, 2)]
    check(made, [(EVERYONE, (), 0), (train, (2, 4), 0), None, 1, *alone, (train, (), 0)])
    assert (made.progress("r2").outcome, made.progress("r2").ended_round) == ("failed", 4)
    assert (made.progress("r1").unlearned_round, made.progress("r1").attempts) == (7, 2)
    assert made.checkpoints.load(4).before is None
    assert made.checkpoints.load(4).meta["strategy"] == {"counted": 1}


def test_it_does_so_where_the_run_ends_with_it(tmp_path):
    fault = only(LOST, client=2, rounds=range(4, 100))
    requests = [("r1", (2,), 1)]
    made = federation(tmp_path, requests=requests, fault=fault, settings=settings(max_attempts=1))
    made.run(ThreeRounds, 4)
    assert bits(made.weights(4)) == bits(made.weights(1))
    assert bits(made.checkpoints.load(4).vector) == bits(made.weights(1))
    assert made.life("r1")[-1] == ("failed", 4)


def test_withdrawn_while_it_waits_it_is_taken_back(tmp_path):
    fault = only(LOST, client=2, rounds=[3])
    made = federation(tmp_path, requests=[("r1", (2,), 1)], fault=fault).run(ThreeRounds, 3)
    made.ledger.transition("tiny", "r1", "withdrawn", round=3)
    again = federation(tmp_path, requests=(), ledger=made.ledger).run(ThreeRounds, 4)
    again.states[0] = again.start
    train = (0, 1, 3, 4, 5)
    states = by_hand(again.start.vector, [(EVERYONE, (), 0), 1, 1, (train, (), 0)])
    torch.testing.assert_close(again.weights(4), states[4][0], rtol=0, atol=1e-12)
    assert again.strategy.counted == 2
    assert again.checkpoints.load(4).before is None


def test_a_model_that_is_no_numbers_in_the_middle_ends_the_run(tmp_path):
    class Leaping(ThreeRounds):
        def combine(self, round):
            made = super().combine(round)
            return made * math.inf if round.plan.step == 1 else made

    made = federation(tmp_path)
    with pytest.raises(DivergedError, match=r"^round 3: diverged, the global model holds NaN or Inf"):
        made.run(Leaping, 5)
    assert made.checkpoints.rounds() == [1, 2]


# -- recovery ----------------------------------------------------------------------------------------------


def progress(**changes):
    return replace(RequestProgress("r", (2,), 10, unlearned_round=13, steps=2), **changes)


def rule(**changes):
    references = {frozenset({2}): RetrainReference(dict.fromkeys(range(1, 100), 80.0))}
    given = {"until": "retrain-accuracy", "references": references, "max_rounds": 5, **changes}
    return RecoveryRule(**given)


@pytest.mark.parametrize(
    ("request_", "capped"),
    [
        (progress(), 15),  # rounds 11 to 13 unlearn, 14 and 15 are left
        (progress(steps=0, unlearned_round=11), 15),
        (progress(unlearned_round=16, attempts=3), 18),
        (progress(unlearned_round=15), 15),  # it has waited for another's: the retrained model ends there
    ],
)
@pytest.mark.parametrize("until", ["retrain-accuracy", "max-rounds"])
def test_the_rounds_of_an_unlearning_count_against_the_cap(request_, capped, until):
    (r,) = [request_]
    for t in range(request_.unlearned_round, 30):
        (r,) = rule(until=until).judge([r], t, {"validation-accuracy": 10.0})
    assert r.ended_round == capped


def test_where_there_is_no_retrained_model_the_cap_counts_from_the_first_round():
    (r,) = [progress(unlearned_round=20, reference=90.0)]
    for t in range(20, 30):
        live = rule(until="reference-accuracy", references=None)
        (r,) = live.judge([r], t, {"validation-accuracy": 10.0})
    assert r.ended_round == 22


def test_in_the_middle_of_an_unlearning_nothing_is_judged():
    earlier = RequestProgress("r0", (1,), 5, unlearned_round=6)
    under_way = progress(unlearned_round=None)
    metrics = {"validation-accuracy": 99.0, "test-accuracy": 99.0}
    assert rule().judge([earlier, under_way], 12, metrics) == (earlier, under_way)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"steps": 1}, None),
        ({"steps": 1, "attempts": 1}, None),
        ({"steps": 1, "attempts": 1, "held": True}, "waiting"),
        ({"steps": 0, "attempts": 1}, "waiting"),
        ({"steps": 2, "unlearned_round": 13}, "recovering"),
        ({"steps": 1, "outcome": "failed"}, "failed"),
        ({"steps": 1, "outcome": "diverged"}, "failed"),
    ],
)
def test_progress_in_the_ledger_s_words(changes, state):
    made = progress(**{"unlearned_round": None, **changes})
    assert made.ledger_state(forgets=True) == state
