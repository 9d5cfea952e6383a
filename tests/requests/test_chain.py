"""The hash chain: what a hash is, and that no single change to a trail goes unnoticed."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fedunlearn.errors import UserError
from fedunlearn.requests import Head, Ledger, LedgerError, Move, SignedHead
from fedunlearn.requests.chain import GENESIS
from tests.profiles import some

CHAINED = (
    "branch",
    "entry",
    "request_id",
    "from_state",
    "to_state",
    "round",
    "at",
    "clients",
    "asked",
    "hash",
)
OTHER_VALUES: dict[str, tuple[Any, ...]] = {
    "branch": ("other", ""),
    "entry": (0, 3, 99),
    "request_id": ("r1", "r2", "r9"),
    "from_state": (None, "received", "waiting", "forgotten"),
    "to_state": ("received", "waiting", "recovering", "forgotten", "nonsense"),
    "round": (None, 0, 2, 77),
    "at": (0.0, 1e9, "soon"),
    "clients": (None, "[1]", "[1,2,4]", "3", "nonsense"),
    "asked": (None, "", GENESIS),
    "hash": (GENESIS, "", "f" * 64),
}


def story() -> Ledger:
    """Return a ledger with two requests of every kind of step, another branch in between, and a running clock."""
    ledger = Ledger(":memory:", clock=map(float, itertools.count(100)).__next__)
    ledger.submit("b", request_id="r1", clients=[1, 2], at_round=1)
    ledger.submit("other", request_id="r1", clients=[5])
    ledger.submit("b", request_id="r2", clients=[3])
    ledger.commit_plan("b", 2, {"requests": ["r1", "r2"]})
    ledger.transition_many("b", [Move("r1", "unlearning", 2), Move("r2", "unlearning", 2)])
    ledger.transition("b", "r2", "waiting", round=2, detail="client 3 failed")
    ledger.transition("other", "r1", "withdrawn", round=2)
    ledger.transition("b", "r1", "recovering", round=2)
    ledger.transition("b", "r1", "forgotten", round=4, detail="within epsilon")
    return ledger


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with story() as made:
        made.store.rows("DROP INDEX audit_of_branch")  # whoever forges an entry drops what stands in the way
        yield made


@contextmanager
def tampered(ledger: Ledger, *statements: tuple[Any, ...]) -> Iterator[None]:
    """Let somebody else's hand at the file for a while."""
    ledger.store.rows("BEGIN")
    for sql, *values in statements:
        ledger.store.rows(sql, *values)
    yield
    ledger.store.rows("ROLLBACK")


def rehash(ledger: Ledger, branch: str) -> None:
    """Make a branch's chain consistent again, as a forger with the source code would: an independent hash."""
    previous = GENESIS
    for entry, row in enumerate(
        ledger.store.rows("SELECT * FROM audit WHERE branch = ? ORDER BY seq", branch), 1
    ):
        clients = None if row["clients"] is None else json.loads(row["clients"])
        states = row["from_state"], row["to_state"]
        asked = [] if row["asked"] is None else [row["asked"]]
        text = json.dumps(
            [branch, entry, row["request_id"], *states, row["round"], row["at"], clients, *asked],
            separators=(",", ":"),
        )
        previous = hashlib.sha256((previous + text).encode()).hexdigest()
        sql = "UPDATE audit SET entry = ?, hash = ? WHERE seq = ?"
        ledger.store.rows(sql, entry, previous, row["seq"])


def test_an_untouched_trail_is_intact_and_hashed_as_documented(ledger: Ledger) -> None:
    for branch in ("b", "other"):
        trail = ledger.audit(branch)
        assert [e.entry for e in trail] == list(range(1, len(trail) + 1))
        assert ledger.check_trail(branch, head=ledger.head(branch)) == []
        assert all(ledger.check_trail(branch, head=Head(e.entry, e.hash)) == [] for e in trail)
        ledger.store.rows("BEGIN")
        rehash(ledger, branch)
        assert ledger.audit(branch) == trail
        ledger.store.rows("ROLLBACK")
    assert ledger.check_trail("empty") == [] and ledger.head("empty") is None


def test_every_edit_of_one_entry_is_found(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    tried = 0
    for entry, column in itertools.product(entries, CHAINED):
        old = ledger.store.rows(f"SELECT {column} AS cell FROM audit WHERE seq = ?", entry.seq)[0]["cell"]
        for value in OTHER_VALUES[column]:
            if value == old:
                continue
            tried += 1
            with tampered(ledger, (f"UPDATE audit SET {column} = ? WHERE seq = ?", value, entry.seq)):
                assert ledger.check_trail("b"), (entry.entry, column, value)
    assert tried > 200


@pytest.mark.parametrize(
    ("gone", "words"), [("= 2", "entry 2 is missing"), ("IN (2, 3)", "entries 2 to 3 are missing")]
)
def test_what_is_missing_is_named(ledger: Ledger, gone: str, words: str) -> None:
    with tampered(ledger, (f"DELETE FROM audit WHERE branch = 'b' AND entry {gone}",)):
        assert words in ledger.check_trail("b")


def test_an_edit_is_named_by_its_entry(ledger: Ledger) -> None:
    with tampered(ledger, ("UPDATE audit SET round = 3 WHERE branch = 'b' AND entry = 8",)):
        (first, *_) = ledger.check_trail("b")
        assert first == (
            "entry 8 (request r1: unlearning → recovering): does not follow from the entry before it; something was "
            "edited, removed or inserted"
        )


def test_every_removal_is_found(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    for entry in entries:
        gone = ("DELETE FROM audit WHERE seq = ?", entry.seq)
        with tampered(ledger, gone):
            assert ledger.check_trail("b"), entry.entry
        renumbered = "UPDATE audit SET entry = entry - 1 WHERE branch = 'b' AND entry > ?"
        with tampered(ledger, gone, (renumbered, entry.entry)):
            assert ledger.check_trail("b"), f"{entry.entry}, those after it moved up"
        with tampered(ledger, gone):
            rehash(ledger, "b")
            assert ledger.check_trail("b"), f"{entry.entry}, chained anew: the requests still tell"
            assert any("the given head" in line for line in ledger.check_trail("b", head=_head(entries[-1])))


def test_every_insertion_is_found(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    columns = "branch, request_id, from_state, to_state, round, at, clients, detail, hash, asked"
    for place, copied in itertools.product(range(1, len(entries) + 2), entries):
        shift = ("UPDATE audit SET entry = entry + 1 WHERE branch = 'b' AND entry >= ?", place)
        make_room = ("UPDATE audit SET seq = seq + 1000 WHERE seq > ?", copied.seq)
        put_in = (
            f"INSERT INTO audit (seq, entry, {columns}) SELECT ?, ?, {columns} FROM audit WHERE seq = ?",
            999,
            place,
            copied.seq,
        )
        with tampered(ledger, make_room, shift, put_in):
            assert ledger.check_trail("b"), (place, copied.entry)
    for copied in entries:
        last = (
            f"INSERT INTO audit (entry, {columns}) SELECT 99, {columns} FROM audit WHERE seq = ?",
            copied.seq,
        )
        with tampered(ledger, last):
            rehash(ledger, "b")
            assert ledger.check_trail("b"), f"a well-made copy of {copied.entry} at the end"


def test_two_entries_that_changed_places_are_found(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    for one, other in itertools.combinations(entries, 2):
        swap = "UPDATE audit SET {0} = CASE seq WHEN ? THEN ? ELSE ? END WHERE seq IN (?, ?)"
        for column in ("entry", "hash"):
            values = (getattr(other, column), getattr(one, column))
            with tampered(ledger, (swap.format(column), one.seq, *values, one.seq, other.seq)):
                assert ledger.check_trail("b"), (one.entry, other.entry, column)


def test_entries_that_are_shown_in_another_order_are_found(ledger: Ledger) -> None:
    for one, other in itertools.combinations(ledger.audit("b"), 2):
        move = "UPDATE audit SET seq = ? WHERE seq = ?"
        with tampered(ledger, (move, 999, one.seq), (move, one.seq, other.seq), (move, other.seq, 999)):
            assert any("they have been swapped" in line for line in ledger.check_trail("b"))


def test_every_truncation_is_found(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    for left in range(len(entries)):
        cut = ("DELETE FROM audit WHERE branch = 'b' AND entry > ?", left)
        with tampered(ledger, cut):
            assert ledger.check_trail("b"), f"cut after {left}: the requests tell"
        with tampered(ledger, cut):
            _make_requests_agree(ledger, "b")
            assert ledger.check_trail("b") == [], "a consistent shorter trail tells by itself nothing"
            (line,) = ledger.check_trail("b", head=_head(entries[-1]))
            assert (
                line
                == f"the given head belongs to entry 9, but the trail ends at entry {left}: it was cut off"
            )


def test_a_trail_written_anew_is_found_by_any_head_kept(ledger: Ledger) -> None:
    entries = ledger.audit("b")
    for entry in entries:
        ledger.add_signed_head("b", SignedHead(entry.entry, entry.hash, 1.0, "0123456789abcdef", "signature"))
    for changed in entries:
        with tampered(ledger, ("UPDATE audit SET at = at + 0.5 WHERE seq = ?", changed.seq)):
            rehash(ledger, "b")
            _make_requests_agree(ledger, "b")
            found = ledger.check_trail("b")
            # The signed heads at the entry and after it tell, those before it agree.
            assert [line.split(":")[0] for line in found] == [
                f"the head signed by key 0123456789abcdef has a different hash for entry {e.entry}"
                for e in entries[changed.entry - 1 :]
            ]


REQUEST_EDITS = {
    "id": ("r7",),
    "clients": ("[1]", "[4]", "nonsense"),
    "at_round": (None, 9),
    "state": ("received", "withdrawn", "forgotten-unrecovered", "nonsense"),
    "state_round": (None, 9),
    "unlearned_round": (None, 9),
    "ended_round": (None, 9),
    "arrived_at": (0.5,),
    "actor": ("operator:y", "client:1"),
    "source": ("cli", ""),
    "same_as": ("r1", "r9"),
}


def test_a_request_that_does_not_stand_as_the_trail_says_is_found(ledger: Ledger) -> None:
    for name, (column, values) in itertools.product(("r1", "r2"), REQUEST_EDITS.items()):
        sql = f"SELECT {column} AS cell FROM requests WHERE branch = 'b' AND id = ?"
        for value in values:
            if value == ledger.store.rows(sql, name)[0]["cell"]:
                continue
            with tampered(
                ledger, (f"UPDATE requests SET {column} = ? WHERE branch = 'b' AND id = ?", value, name)
            ):
                assert ledger.check_trail("b"), (name, column, value)
    with tampered(ledger, ("DELETE FROM requests WHERE branch = 'b' AND id = 'r1'",)):
        assert ledger.check_trail("b") == ["request r1: is in the trail, but not among the requests"]
    with tampered(ledger, ("DELETE FROM audit WHERE branch = 'b'",)):
        assert len(ledger.check_trail("b")) == 2
    with tampered(ledger, ("UPDATE requests SET state = 'forgotten' WHERE branch = 'b' AND id = 'r2'",)):
        assert (
            ledger.check_trail("b")[0] == "request r2: its state is 'forgotten', but the trail says 'waiting'"
        )


def test_remarks_are_outside_the_chain(ledger: Ledger) -> None:
    with tampered(ledger, ("UPDATE audit SET detail = 'erased'",)):
        assert ledger.check_trail("b", head=ledger.head("b")) == []


def test_the_other_branch_is_not_looked_at(ledger: Ledger) -> None:
    with tampered(ledger, ("DELETE FROM audit WHERE branch = 'other'",)):
        assert ledger.check_trail("b") == []


def test_a_signed_head_must_be_in_the_trail(ledger: Ledger) -> None:
    head = ledger.head("b")
    assert head is not None
    signed = SignedHead(head.entry, head.hash, 5.0, "k", "s")
    ledger.add_signed_head("b", signed)
    ledger.add_signed_head("b", signed)
    first = ledger.audit("b")[0]
    ledger.add_signed_head("b", SignedHead(1, first.hash, 6.0, "k", "t"))
    assert [s.entry for s in ledger.signed_heads("b")] == [1, 9] and ledger.signed_heads("b")[1] == signed
    assert ledger.signed_heads("b")[1].head == head and ledger.signed_heads("other") == []
    for wrong in (Head(9, GENESIS), Head(10, head.hash), Head(1, head.hash)):
        with pytest.raises(LedgerError, match="is not in the trail of branch 'b'"):
            ledger.add_signed_head("b", SignedHead(wrong.entry, wrong.hash, 5.0, "k", "s"))
    with pytest.raises(LedgerError, match="its trail was signed and cannot be replaced"):
        ledger.load("b", ledger.export("other"))


@given(st.integers(1, 10**9), st.binary(min_size=32, max_size=32))
def test_a_head_is_read_as_it_is_written(entry: int, digest: bytes) -> None:
    head = Head(entry, digest.hex())
    assert Head.parse(f" {head}\n") == head


@pytest.mark.parametrize(
    "text", ["", "12", "12:", f"0:{GENESIS}", f"1:{GENESIS[1:]}", f"1:{'A' * 64}", f"-1:{GENESIS}"]
)
def test_what_is_no_head_is_the_users_mistake(text: str) -> None:
    with pytest.raises(UserError, match="must be an entry's number and its hash"):
        Head.parse(text)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["waiting", "scheduled", "withdrawn"])), max_size=12
    )
)
@some
def test_equal_histories_have_equal_heads_and_a_longer_one_keeps_the_shorter_ones_hashes(
    steps: list[tuple[int, str]],
) -> None:
    with Ledger(":memory:", clock=lambda: 3.0) as one, Ledger(":memory:", clock=lambda: 3.0) as other:
        for ledger in (one, other):
            ledger.submit("b", request_id="r0", clients=[0])
        for number, (round, state) in enumerate(steps):
            for ledger in (one, other):
                known = ledger.head("b")
                try:
                    ledger.transition("b", "r0", state, round=round)
                except LedgerError:
                    ledger.submit("b", request_id=f"r{number}-{state}", clients=[number], at_round=round)
                assert known is not None and ledger.check_trail("b", head=known) == []
        assert one.head("b") == other.head("b")


def _head(entry: Any) -> Head:
    return Head(entry.entry, entry.hash)


def _make_requests_agree(ledger: Ledger, branch: str) -> None:
    """Set every request to what the trail says, as a careful forger would."""
    trail = ledger.audit(branch)
    for record in ledger.requests(branch):
        steps = [e for e in trail if e.request_id == record.id]
        if not steps:
            ledger.store.rows("DELETE FROM requests WHERE branch = ? AND id = ?", branch, record.id)
            continue
        unlearned = [a.round for a, b in itertools.pairwise(steps) if b.to_state == "recovering"]
        ledger.store.rows(
            "UPDATE requests SET state = ?, state_round = ?, unlearned_round = ?, ended_round = ?, arrived_at = ? "
            "WHERE branch = ? AND id = ?",
            *(steps[-1].to_state, steps[-1].round if len(steps) > 1 else None),
            *(
                unlearned[0] if unlearned else None,
                steps[-1].round if steps[-1].to_state == "forgotten" else None,
            ),
            *(steps[0].at, branch, record.id),
        )
