"""A forget request's life as the ledger records it, while a federation goes on."""

import sqlite3
from itertools import pairwise

import pytest

from fedunlearn.federation.answers import FORGET
from fedunlearn.requests import TRANSITIONS, Ledger
from fedunlearn.server.recovery import RecoveryRule, RetrainReference
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from tests.server.tiny import Federation, settings

TARGET = dict.fromkeys(range(1, 40), 80.0)


def recovering(
    *accuracies, cap=4, references=None, requests=(("r1", (2,), 2),), kind=PUF, first=3, **options
):
    """Return a federation whose validation accuracy is scripted from round ``first`` on."""
    if references is None:
        references = {frozenset({2}): RetrainReference(TARGET)}
    rule = RecoveryRule(until="retrain-accuracy", max_rounds=cap, references=references)
    made = Federation(
        settings=settings(recovery=rule),
        measure=lambda t, _: {"validation-accuracy": accuracies[t - first]} if t >= first else {},
    )
    for name, clients, at_round in requests:
        made.submit(name, clients, at_round)
    return made.run(kind, first + len(accuracies) - 1, **options)


def test_received_to_forgotten():
    ran = recovering(10.0, 79.0, 80.0, 5.0)
    assert ran.life("r1") == [
        ("received", 2),
        ("scheduled", 3),
        ("unlearning", 3),
        ("recovering", 3),
        ("forgotten", 5),
    ]
    record = ran.ledger.request("tiny", "r1")
    assert (record.unlearned_round, record.ended_round) == (3, 5)


def test_the_unlearning_round_may_be_the_recovery():
    assert recovering(80.0, 0.0).life("r1")[-2:] == [("recovering", 3), ("forgotten", 3)]


def test_the_cap_ends_it_unrecovered():
    assert recovering(*[79.9] * 5, cap=4).life("r1")[-2:] == [
        ("recovering", 3),
        ("forgotten-unrecovered", 6),
    ]


def test_without_a_measure_it_is_not_called_recovered():
    ran = recovering(*[float("nan")] * 4, cap=3)
    assert ran.life("r1")[-1] == ("forgotten-unrecovered", 5)


def test_a_later_request_supersedes():
    both = {
        frozenset({2}): RetrainReference(TARGET),
        frozenset({2, 4, 5}): RetrainReference(dict.fromkeys(TARGET, 70.0)),
    }
    asked = (("r1", (2,), 2), ("r2", (5, 4), 4))
    ran = recovering(60.0, 60.0, 60.0, 71.0, references=both, requests=asked)
    assert ran.life("r1")[-2:] == [("recovering", 3), ("superseded", 5)]
    assert ran.life("r2") == [
        ("received", 4),
        ("scheduled", 5),
        ("unlearning", 5),
        ("recovering", 5),
        ("forgotten", 6),
    ]


def test_requests_of_one_round_have_one_life():
    union = {frozenset({1, 2}): RetrainReference(TARGET)}
    ran = recovering(10.0, 80.0, references=union, requests=(("r1", (2,), 2), ("r2", (1,), 2)))
    assert ran.life("r1") == ran.life("r2")
    assert ran.life("r1")[-1] == ("forgotten", 4)


def test_natural_ends_excluded_and_is_never_called_forgotten():
    ran = recovering(10.0, 80.0, 80.0, kind=Natural)
    states = [state for state, _ in ran.life("r1")]
    assert ran.life("r1")[-1] == ("excluded", 3)
    assert set(states).isdisjoint({"unlearning", "recovering", "forgotten"})
    assert (ran.progress("r1").outcome, ran.progress("r1").ended_round) == ("recovered", 4), (
        "for the scorecard"
    )


@pytest.mark.parametrize("kind", [PUF, Natural])
def test_every_step_is_in_the_table(kind):
    ran = recovering(10.0, 80.0, kind=kind)
    states = [state for state, _ in ran.life("r1")]
    assert all(after in TRANSITIONS[before] for before, after in pairwise(states))


def test_the_plan_is_committed_before_anybody_is_asked():
    made = Federation()
    made.submit("r1", (2,), 1)
    seen = {}

    def look(round, client, kind):
        seen.setdefault(round, (made.ledger.plan("tiny", round), made.ledger.request("tiny", "r1").state))

    made.clients.fault = look
    made.run(PUF, 3, mode="regular", scale=3.0)
    plans = {t: plan.plan for t, (plan, _) in seen.items()}
    assert plans[1] == {"round": 1, "train": [0, 1, 2, 3, 4, 5], "forget": [], "requests": []}
    assert plans[2] == {"round": 2, "train": [0, 1, 3, 4, 5], "forget": [2], "requests": ["r1"]}
    assert [state for _, state in seen.values()] == ["received", "unlearning", "recovering"]


def test_nobody_withdraws_between_the_question_and_the_plan(tmp_path):
    path = tmp_path / "requests.sqlite"

    class Slow(PUF):
        def plan(self, situation):
            other = sqlite3.connect(path, timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
            return super().plan(situation)

    with Ledger(path) as ledger:
        made = Federation(ledger=ledger)
        made.submit("r1", (2,), 1)
        made.run(Slow, 2)
        assert made.progress("r1").unlearned_round == 2


def test_a_withdrawn_request_is_not_served():
    made = Federation()
    made.submit("r1", (2,), 2)
    made.ledger.transition("tiny", "r1", "withdrawn", round=1)
    made.run(PUF, 4)
    assert 2 in made.clients.of_round(4)
    assert made.strategy.requests == ()


def test_nobody_is_forgotten_twice():
    made = Federation()
    made.submit("r1", (2,), 1)
    made.submit("again", (2,), 3)
    made.submit("partly again", (2, 4), 3)
    made.run(PUF, 5)
    assert made.clients.of_round(4, FORGET) == [4], "client 2 is not negated a second time"
    assert made.life("again")[-1] == ("duplicate", 4)
    assert made.progress("partly again").unlearned_round == 4
    assert "again" not in made.report(4).plan.requests


def test_branches_of_one_ledger_do_not_see_each_other():
    ledger = Ledger(":memory:")
    one, other = Federation(ledger=ledger), Federation(ledger=ledger, branch="other")
    one.submit("r1", (2,), 1)
    other.run(PUF, 3)
    one.run(PUF, 3)
    assert other.clients.of_round(3) == [0, 1, 2, 3, 4, 5]
    assert one.clients.of_round(3) == [0, 1, 3, 4, 5]
