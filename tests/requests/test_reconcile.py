"""Ledger and checkpoint after a crash: whichever is behind, resuming ends as if nothing had happened."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fedunlearn.requests import INITIAL, TRANSITIONS, Ledger, LedgerError, Move
from tests.profiles import many

Step = tuple[str, int]


@st.composite
def lives(draw: st.DrawFn) -> list[Step]:
    """Draw a life of a request as the loop of rounds produces it: a plan starts a round of its own."""
    steps: list[Step] = []
    state, round = INITIAL, 1
    while TRANSITIONS[state] and len(steps) < 10:
        state = draw(st.sampled_from(sorted(TRANSITIONS[state])))
        if state == "scheduled":
            round += draw(st.integers(1, 2))
        elif state in ("forgotten", "forgotten-unrecovered", "superseded"):
            round += draw(st.integers(0, 2))
        steps.append((state, round))
    return steps


def ledger_after(steps: list[Step]) -> Ledger:
    ledger = Ledger(":memory:", clock=lambda: 0.0)
    ledger.submit("b", request_id="r", clients=[3], at_round=1)
    ledger.transition_many("b", [Move("r", state, round) for state, round in steps])
    return ledger


@given(lives(), st.data())
@many
def test_resuming_ends_as_the_uninterrupted_run(life: list[Step], data: st.DataObject) -> None:
    checkpoint_round = data.draw(st.integers(0, 1 + life[-1][1]), "round of the checkpoint")
    applied = [step for step in life if step[1] <= checkpoint_round]
    behind = sum(1 for _, round in life if round < checkpoint_round)
    in_ledger = data.draw(st.integers(behind, len(life)), "steps the ledger has")
    names = data.draw(st.sampled_from(["entered", "checkpoint"]), "whose round the checkpoint tells")
    state, entered = applied[-1] if applied else (INITIAL, 1)
    with ledger_after(life[:in_ledger]) as ledger, ledger_after(life) as uninterrupted:
        made = ledger.reconcile("b", {"r": (state, entered if names == "entered" else checkpoint_round)})
        if in_ledger <= len(applied):
            assert ledger.request("b", "r").state == state
        else:
            assert made == []
        if in_ledger == len(applied):
            assert made == []
        assert ledger.reconcile("b", {"r": (state, entered)}) == [], "reconciling twice"
        ledger.transition_many("b", [Move("r", s, t) for s, t in life[len(applied) :]])
        assert ledger.request("b", "r") == uninterrupted.request("b", "r")
        trail = [(e.to_state, e.round) for e in ledger.audit()]
        assert len(trail) == len(set(trail)), "a transition was made twice"
        assert all(
            e.to_state in TRANSITIONS[e.from_state] for e in ledger.audit() if e.from_state is not None
        )


def test_a_ledger_behind_walks_every_step() -> None:
    with ledger_after([("scheduled", 4)]) as ledger:
        made = ledger.reconcile("b", {"r": ("forgotten", 6)})
        assert [(e.from_state, e.to_state, e.round) for e in made] == [
            ("scheduled", "unlearning", 4),
            ("unlearning", "recovering", 6),
            ("recovering", "forgotten", 6),
        ]
        assert {e.detail for e in made} == {"reconciled with the checkpoint"}
        assert ledger.request("b", "r").unlearned_round == 4
        assert ledger.audit()[-3:] == made


def test_a_committed_plan_survives_an_older_checkpoint() -> None:
    for steps in ([("scheduled", 4)], [("scheduled", 4), ("unlearning", 4)]):
        with ledger_after(steps) as ledger:
            assert ledger.reconcile("b", {"r": ("received", 3)}) == []
            assert ledger.request("b", "r").state == steps[-1][0]


@pytest.mark.parametrize("told", [2, 3])  # the round in which it began to wait, or the checkpoint's own
def test_a_held_set_planned_again_is_not_thrown_back(told: int) -> None:
    held = [("scheduled", 2), ("unlearning", 2), ("waiting", 2)]
    with ledger_after([*held, ("scheduled", 4), ("unlearning", 4)]) as ledger:
        assert ledger.reconcile("b", {"r": ("waiting", told)}) == []
        assert ledger.request("b", "r").state == "unlearning"
    with ledger_after(held[:2]) as ledger:
        assert [e.to_state for e in ledger.reconcile("b", {"r": ("waiting", told)})] == ["waiting"]


def test_what_was_withdrawn_while_the_server_was_down_stays_withdrawn() -> None:
    with ledger_after([("withdrawn", 0)]) as ledger:
        assert ledger.reconcile("b", {"r": ("received", 5)}) == []
        assert ledger.request("b", "r").state == "withdrawn"


def test_requests_the_checkpoint_does_not_know_are_kept() -> None:
    with ledger_after([("scheduled", 4)]) as ledger:
        ledger.submit("b", request_id="new", clients=[5])
        assert ledger.reconcile("b", {}) == []
        assert [r.state for r in ledger.requests("b")] == ["scheduled", "received"]


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([("withdrawn", 1)], "recovering"),
        ([("scheduled", 2), ("unlearning", 2), ("recovering", 2), ("forgotten", 3)], "superseded"),
        ([("scheduled", 2), ("unlearning", 2), ("recovering", 2)], "withdrawn"),
        ([], "nonsense"),
    ],
)
def test_a_contradiction_is_an_error_and_changes_nothing(steps: list[Step], state: str) -> None:
    with ledger_after(steps) as ledger:
        ledger.submit("b", request_id="a", clients=[1])
        trail = ledger.audit()
        with pytest.raises(LedgerError, match="do both files belong to this run"):
            ledger.reconcile("b", {"a": ("waiting", 3), "r": (state, 3)})
        assert ledger.audit() == trail


def test_a_checkpoint_with_an_unknown_request_is_an_error() -> None:
    with ledger_after([]) as ledger, pytest.raises(LedgerError, match="'lost' is not in the ledger"):
        ledger.reconcile("b", {"lost": ("received", 1)})
