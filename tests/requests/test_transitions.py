"""The table of a request's life: every pair of states, and the shortest ways between them."""

from itertools import product

import pytest

from fedunlearn.requests import ENDS, INITIAL, STATES, TRANSITIONS, Ledger, LedgerError
from fedunlearn.requests.transitions import is_legal, path

# Written out a second time, pair by pair, so that a change of the table has to be made on purpose.
LEGAL = {
    ("received", "scheduled"),
    ("received", "waiting"),
    ("received", "duplicate"),
    ("received", "withdrawn"),
    ("received", "refused"),
    ("received", "excluded"),
    ("received", "failed"),
    ("waiting", "scheduled"),
    ("waiting", "duplicate"),
    ("waiting", "withdrawn"),
    ("waiting", "refused"),
    ("waiting", "excluded"),
    ("waiting", "failed"),
    ("scheduled", "unlearning"),
    ("scheduled", "waiting"),
    ("scheduled", "excluded"),
    ("scheduled", "failed"),
    ("unlearning", "recovering"),
    ("unlearning", "unlearning"),
    ("unlearning", "waiting"),
    ("unlearning", "refused"),
    ("unlearning", "excluded"),
    ("unlearning", "failed"),
    ("recovering", "forgotten"),
    ("recovering", "forgotten-unrecovered"),
    ("recovering", "superseded"),
}
PAIRS = list(product(STATES, STATES))


def ledger_in(state: str) -> Ledger:
    """Return a ledger whose only request has been led to `state` by way of round 1."""
    ledger = Ledger(":memory:")
    ledger.submit("b", request_id="r", clients=[0], at_round=0)
    way = path(INITIAL, state)
    assert way is not None, f"{state} cannot be reached at all"
    for step in way:
        ledger.transition("b", "r", step, round=1)
    return ledger


def test_the_states_are_those_of_the_design() -> None:
    assert set(STATES) == {
        *("received", "waiting", "scheduled", "unlearning", "recovering", "forgotten"),
        *("forgotten-unrecovered", "superseded", "duplicate", "withdrawn", "refused", "excluded", "failed"),
    }
    assert set(STATES) - ENDS == {"received", "waiting", "scheduled", "unlearning", "recovering"}


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_request_moves_as_the_table_says_and_not_otherwise(before: str, after: str) -> None:
    assert is_legal(before, after) == ((before, after) in LEGAL)
    with ledger_in(before) as ledger:
        trail = ledger.audit()
        if (before, after) in LEGAL:
            ledger.transition("b", "r", after, round=2)
            assert ledger.request("b", "r").state == after
            assert [(e.from_state, e.to_state) for e in ledger.audit()[len(trail) :]] == [(before, after)]
        else:
            with pytest.raises(LedgerError, match=f"cannot go from '{before}' to '{after}'"):
                ledger.transition("b", "r", after, round=2)
            assert ledger.request("b", "r").state == before
            assert ledger.audit() == trail


def test_an_unknown_state_is_refused() -> None:
    with ledger_in("received") as ledger, pytest.raises(LedgerError, match="to 'forgoten'"):
        ledger.transition("b", "r", "forgoten", round=1)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_paths_are_legal_and_shortest(before: str, after: str) -> None:
    within = {before}  # states reachable in at most `length` steps, by plain expansion
    length = 0
    while after not in within and length < len(STATES):
        within |= {b for a, b in LEGAL if a in within}
        length += 1
    way = path(before, after)
    if after not in within:
        assert way is None
    else:
        assert way is not None and len(way) == length
        steps = list(zip((before, *way), way, strict=False))
        assert all(step in LEGAL for step in steps)


def test_ends_are_final_and_everything_else_can_end() -> None:
    for state in STATES:
        assert (not TRANSITIONS[state]) == (state in ENDS)
        assert any(path(state, end) is not None for end in ENDS)


def test_withdrawing_is_possible_only_before_a_plan_is_committed() -> None:
    assert {a for a, b in LEGAL if b == "withdrawn"} == {"received", "waiting"}


def test_an_end_alone_tells_whether_anything_was_unlearned() -> None:
    unlearned = {"forgotten", "forgotten-unrecovered", "superseded"}
    assert {a for a, b in LEGAL if b in unlearned} == {"recovering"}
    assert {b for a, b in LEGAL if a == "recovering"} == unlearned
    for end in unlearned:
        way = path(INITIAL, end)
        assert way is not None and way[-3:] == ("unlearning", "recovering", end)
        with ledger_in(end) as ledger:
            assert ledger.request("b", "r").unlearned_round == 1


@pytest.mark.parametrize("end", ["duplicate", "withdrawn", "refused", "excluded", "failed"])
def test_nothing_was_unlearned_in_the_other_ends(end: str) -> None:
    with ledger_in(end) as ledger:
        record = ledger.request("b", "r")
        assert (record.unlearned_round, record.ended_round, record.ended) == (None, 1, True)
