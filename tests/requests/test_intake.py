"""Live requests as those who ask see them: receipts, keys, duplicates, rights, taking back."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import UserError
from fedunlearn.requests import (
    Intake,
    InvalidRequestError,
    Ledger,
    LedgerError,
    Move,
    NotAllowedError,
    NotWithdrawableError,
    RequestConflictError,
    UnknownRequestError,
)
from fedunlearn.requests.transitions import STATES, path

OPERATOR = "operator:ada"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    clock = map(float, itertools.count(1000))
    with Ledger(tmp_path / "requests.sqlite", clock=lambda: next(clock)) as opened:
        yield opened


@pytest.fixture
def intake(ledger: Ledger) -> Intake:
    return Intake(ledger, num_clients=8)


def ask(intake: Intake, *clients: int, actor: str = OPERATOR, key: str | None = None) -> Any:
    return intake.ask(clients, source="cli", actor=actor, idempotency_key=key)


def lead(ledger: Ledger, request_id: str, state: str, round: int = 1) -> None:
    """Lead a request that was just received to a state, by way of one round."""
    way = path("received", state)
    assert way is not None
    ledger.transition_many("federation", [Move(request_id, step, round) for step in way])


def test_a_receipt_tells_what_is_on_the_disk(ledger: Ledger, intake: Intake) -> None:
    receipt = intake.ask([5, 2, 5], source="http", actor=OPERATOR)
    record = ledger.request("federation", receipt.request_id)
    assert receipt.clients == record.clients == (2, 5)
    assert (receipt.state, receipt.same_as, receipt.repeated) == ("received", None, False)
    assert (record.source, record.actor, record.at_round) == ("http", OPERATOR, None)
    (entry,) = ledger.audit("federation")
    assert receipt.arrived_at == record.arrived_at == entry.at == 1000.0
    assert (receipt.head.entry, receipt.head.hash, entry.clients) == (entry.entry, entry.hash, (2, 5))
    assert ledger.check_trail("federation", head=receipt.head) == []
    assert ledger.due("federation", 1) == [record] == ledger.requests("federation", client=5)
    assert ledger.requests("federation", client=3) == []


def test_ids_are_random_and_tell_nothing(intake: Intake) -> None:
    ids = [ask(intake, k % 8).request_id for k in range(50)]
    assert len(set(ids)) == 50
    assert all(len(i) == 17 and i[0] == "r" and set(i[1:]) <= set("0123456789abcdef") for i in ids)


@pytest.mark.parametrize("clients", [[], [8], [-1], [0, 99], [True], ["3"], [1.0], [None], [2**70]])
def test_a_request_that_can_mean_nothing_is_refused_and_not_recorded(
    clients: list[Any], ledger: Ledger, intake: Intake
) -> None:
    with pytest.raises(InvalidRequestError, match=r"^clients: ") as caught:
        intake.ask(clients, source="cli", actor=OPERATOR, idempotency_key="k")
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    assert ledger.requests("federation") == [] and ledger.head("federation") is None


@pytest.mark.parametrize(
    "actor",
    [
        *(
            "",
            "ada",
            "operator:",
            "client:",
            "client:x",
            "client:-1",
            "root:1",
            "client:03",
            "client:3 ",
            "client:３",
        ),
        *(
            "operator:a b",
            "operator:a\nb",
            "operator:-",
            "operator:" + "a" * 65,
            "client:" + "1" * 30,
            "monitor:eye",
        ),
    ],
)
def test_an_actor_must_be_one(actor: str, ledger: Ledger, intake: Intake) -> None:
    with pytest.raises(ValueError, match="must be operator:<name> or client:<number>"):
        ask(intake, 1, actor=actor)
    assert ledger.requests("federation") == []


def test_a_client_asks_for_itself_only(ledger: Ledger, intake: Intake) -> None:
    for others in ((4,), (3, 4), (4, 3)):
        with pytest.raises(NotAllowedError, match="client:3 may ask only for itself"):
            ask(intake, *others, actor="client:3")
    assert ledger.requests("federation") == []
    assert ask(intake, 3, actor="client:3").clients == (3,)


def test_the_same_key_is_the_same_request_however_often(ledger: Ledger, intake: Intake) -> None:
    first = ask(intake, 1, 2, key="k")
    again = [intake.ask(c, source="http", actor=OPERATOR, idempotency_key="k") for c in ([2, 1], [1, 2, 2])]
    assert all(r.repeated for r in again)
    assert {(r.request_id, r.clients, r.arrived_at, r.head) for r in (first, *again)} == {
        (first.request_id, (1, 2), first.arrived_at, first.head)
    }
    assert len(ledger.requests("federation")) == len(ledger.audit()) == 1
    with pytest.raises(
        RequestConflictError, match="was already used for clients 1 and 2; a request for client 1 needs"
    ):
        ask(intake, 1, key="k")
    lead(ledger, first.request_id, "forgotten")
    assert (ask(intake, 1, 2, key="k").state, ask(intake, 1, 2, key="k").head) == ("forgotten", first.head)


def test_keys_of_different_actors_and_federations_are_different_and_kept_as_hashes(
    ledger: Ledger, intake: Intake, tmp_path: Path
) -> None:
    key = "a key that nobody should find in the file"
    ids = {
        ask(intake, 3, actor=actor, key=key).request_id for actor in (OPERATOR, "operator:bob", "client:3")
    }
    ids.add(ask(Intake(ledger, "another", num_clients=8), 3, key=key).request_id)
    assert len(ids) == 4
    ledger.close()
    assert all(key.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_client_forgotten_already_is_a_duplicate_at_once(ledger: Ledger, intake: Intake) -> None:
    first, second = ask(intake, 1, 2), ask(intake, 3)
    ledger.commit_plan("federation", 4, {"requests": [first.request_id]})
    lead_on = [Move(first.request_id, s, 4) for s in ("unlearning", "recovering")]
    ledger.transition_many("federation", lead_on)
    for clients, state in [
        ((1,), "duplicate"),
        ((1, 2), "duplicate"),
        ((3,), "received"),
        ((1, 3), "received"),
    ]:
        receipt = ask(intake, *clients)
        record = intake.record(receipt.request_id)
        assert receipt.state == record.state == state, clients
        assert ledger.check_trail("federation", head=receipt.head) == []
        if state == "duplicate":
            assert (record.ended_round, record.unlearned_round, receipt.same_as) == (4, None, None)
    for end in ("forgotten", "forgotten-unrecovered", "superseded"):
        other = Intake(ledger, end, num_clients=8)
        one = ask(other, 5)
        ledger.transition_many(end, [Move(one.request_id, s, 1) for s in path("received", end) or ()])
        assert ask(other, 5).state == "duplicate"
    assert second.state == "received"


@pytest.mark.parametrize("end", ["withdrawn", "refused", "excluded", "failed", "duplicate"])
def test_after_an_end_with_nothing_unlearned_a_request_is_served_anew(
    end: str, ledger: Ledger, intake: Intake
) -> None:
    lead(ledger, ask(intake, 1).request_id, end)
    again = ask(intake, 1)
    assert (again.state, again.same_as) == ("received", None)


def test_a_request_names_the_earlier_open_one_that_covers_it(ledger: Ledger, intake: Intake) -> None:
    first = ask(intake, 1, 2)
    same = ask(intake, 2)
    assert (same.state, same.same_as) == ("received", first.request_id)
    assert ask(intake, 2, key="k").same_as == ask(intake, 2, key="k").same_as == first.request_id
    assert ask(intake, 2, 3).same_as is None, "client 3 is in no open request"
    assert ask(intake, 1, 3).same_as is None, "no single request names both"
    for state in ("waiting", "scheduled", "unlearning"):
        ledger.transition("federation", first.request_id, state, round=1)
        assert ask(intake, 1).same_as == first.request_id, f"{state} is open"
    ledger.transition("federation", first.request_id, "refused", round=1)
    assert ask(intake, 2).same_as == same.request_id, "the earliest that is still open"
    assert {r.id for r in ledger.due("federation", 2)} == {
        r.id for r in ledger.requests("federation") if r.id != first.request_id
    }
    assert ledger.check_trail("federation") == []


def test_a_branch_put_in_anothers_place_is_asked_as_the_one_it_is(ledger: Ledger, intake: Intake) -> None:
    other = Intake(ledger, "other", num_clients=8)
    ask(intake, 7, key="k")
    applied, open_, over = ask(other, 1), ask(other, 2), ask(other, 3)
    ledger.transition_many(
        "other", [Move(applied.request_id, s, 1) for s in path("received", "recovering") or ()]
    )
    other.withdraw(over.request_id, actor=OPERATOR)
    ledger.load("federation", ledger.export("other"))
    assert ask(intake, 1).state == "duplicate"
    assert ask(intake, 2).same_as == open_.request_id
    assert (ask(intake, 3).state, ask(intake, 3).same_as is None) == ("received", False)
    fresh = ask(intake, 7, key="k")
    assert (fresh.repeated, fresh.same_as) == (False, None), "keys and requests of the one before are gone"
    assert ledger.check_trail("federation") == []


@pytest.mark.parametrize("state", STATES)
def test_withdrawing_is_possible_before_a_plan_and_else_told_the_state(
    state: str, ledger: Ledger, intake: Intake
) -> None:
    request_id = ask(intake, 1).request_id
    ledger.commit_plan("federation", 6, {"requests": []})
    lead(ledger, request_id, state)
    trail = ledger.audit()
    if state in ("received", "waiting"):
        record = intake.withdraw(request_id, actor=OPERATOR)
        assert (record.state, record.ended_round) == ("withdrawn", 6)
        assert ledger.audit()[-1].detail == "by operator:ada"
        assert ledger.check_trail("federation") == []
    else:
        with pytest.raises(
            NotWithdrawableError, match=f"is {state}; it can be withdrawn only while"
        ) as caught:
            intake.withdraw(request_id, actor=OPERATOR)
        assert caught.value.state == state and ledger.audit() == trail


def test_a_client_withdraws_only_what_it_asked_for_itself(ledger: Ledger, intake: Intake) -> None:
    own, both, by_operator = ask(intake, 1, actor="client:1"), ask(intake, 1, 2), ask(intake, 1)
    another, of_part = (
        ask(intake, 2, actor="client:2"),
        intake.ask([1], samples=0.5, source="cli", actor=OPERATOR),
    )
    for request in (both, by_operator, another, of_part):
        with pytest.raises(NotAllowedError, match="was not made by client:1; only its maker or an operator"):
            intake.withdraw(request.request_id, actor="client:1")
        assert intake.record(request.request_id).state == "received"
    assert intake.withdraw(own.request_id, actor="client:1").state == "withdrawn"
    assert intake.withdraw(by_operator.request_id, actor="operator:another").state == "withdrawn"
    assert intake.withdraw(another.request_id, actor=OPERATOR).state == "withdrawn"
    for call in (intake.record, lambda name: intake.withdraw(name, actor=OPERATOR)):
        with pytest.raises(UnknownRequestError, match="'r0' is not in the ledger"):
            call("r0")


def test_counts_by_state(ledger: Ledger, intake: Intake) -> None:
    assert ledger.counts("federation") == {}
    for k in range(3):
        ask(intake, k)
    intake.withdraw(ask(intake, 5).request_id, actor=OPERATOR)
    assert ledger.counts("federation") == {"received": 3, "withdrawn": 1}


def test_many_who_ask_at_once_with_one_key_get_one_request(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    Ledger(place).close()
    barrier, receipts = threading.Barrier(8), []

    def post(_: int) -> None:
        with Ledger(place) as ledger:
            intake = Intake(ledger, num_clients=8)
            barrier.wait()
            for k in range(5):
                receipts.append(ask(intake, k, key=f"{k}"))

    threads = [threading.Thread(target=post, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger(place) as ledger:
        assert sorted(r.clients for r in ledger.requests("federation")) == [(k,) for k in range(5)]
        assert {r.request_id for r in receipts} == {r.id for r in ledger.requests("federation")}
        assert sum(not r.repeated for r in receipts) == 5 and len(receipts) == 40
        assert ledger.check_trail("federation") == []


def test_a_full_disk_refuses_and_records_nothing(ledger: Ledger, intake: Intake) -> None:
    ask(intake, 1, key="before")
    ledger.store.rows(f"PRAGMA max_page_count = {ledger.store.rows('PRAGMA page_count')[0][0]}")
    recorded = 1
    with pytest.raises(LedgerError, match=r"requests\.sqlite: database or disk is full"):
        for k in range(1000):
            ask(intake, 2, key=f"key {k}")
            recorded += 1
    assert len(ledger.requests("federation")) == recorded
    assert ask(intake, 1, key="before").repeated, "what was acknowledged is still answered for"
    ledger.store.rows("PRAGMA max_page_count = 100000")
    last = ask(intake, 2, key=f"key {recorded - 1}")
    assert not last.repeated and ledger.check_trail("federation") == []


SERVING: dict[str, Callable[[Ledger, Intake, str], object]] = {
    "ask": lambda ledger, intake, open_: ask(intake, 1, key="new"),
    "ask for several": lambda ledger, intake, open_: ask(intake, 1, 3, 5),
    "ask again": lambda ledger, intake, open_: ask(intake, 0, key="key"),
    "withdraw": lambda ledger, intake, open_: intake.withdraw(open_, actor=OPERATOR),
    "due": lambda ledger, intake, open_: ledger.due("federation", 9),
    "open ones": lambda ledger, intake, open_: ledger.requests("federation", ["received", "waiting"]),
    "those of a client": lambda ledger, intake, open_: ledger.requests("federation", client=0),
    "a page": lambda ledger, intake, open_: ledger.page("federation", limit=5),
    "the last page": lambda ledger, intake, open_: ledger.page(
        "federation", after=intake.record(open_).arrival - 1, limit=5
    ),
    "a page by state": lambda ledger, intake, open_: ledger.page("federation", ["refused"], limit=5),
    "a client's page": lambda ledger, intake, open_: ledger.page("federation", client=0, limit=5),
    "the oldest open": lambda ledger, intake, open_: ledger.oldest_open("federation"),
    "a part": lambda ledger, intake, open_: intake.ask([1], samples=[7, 8], source="cli", actor=OPERATOR),
    "commit_plan": lambda ledger, intake, open_: ledger.commit_plan(
        "federation", 9999, {"requests": [open_]}
    ),
    "record_failures": lambda ledger, intake, open_: ledger.record_failures(
        "federation", ledger.last_round("federation"), {1: "x"}
    ),
    "transition": lambda ledger, intake, open_: ledger.transition("federation", open_, "waiting", round=3),
    "reconcile": lambda ledger, intake, open_: ledger.reconcile("federation", {open_: ("scheduled", 3)}),
    "measures": lambda ledger, intake, open_: ledger.note_measures("federation", open_, "before", {}),
    "lease": lambda ledger, intake, open_: ledger.take_lease("federation", "x").renew(),
    "head": lambda ledger, intake, open_: ledger.head("federation"),
}


def steps_of(call: Callable[[Ledger, Intake, str], object], number: int) -> int:
    """Return how many instructions SQLite executes in a call, after so many requests that have ended."""
    with Ledger(":memory:") as ledger, ledger.batch():
        intake = Intake(ledger, num_clients=2000)
        for k in range(number):
            # Half of them name the client that the calls are about.
            clients = (1, 1000 + k) if k % 2 else (k,)
            made = ask(intake, *clients, actor=f"operator:{k % 9}", key=f"old {k}")
            lead(ledger, made.request_id, "refused", round=1 + k)
            made = intake.ask(
                [1], samples=[k], source="cli", actor=f"operator:{k % 9}"
            )  # a part that none had
            lead(ledger, made.request_id, "refused", round=1 + k)
        open_ = ask(intake, 0, key="key").request_id
        ledger.commit_plan("federation", number + 1, {"requests": []})
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        ledger.store._connection.set_progress_handler(count, 1)
        call(ledger, intake, open_)
        ledger.store._connection.set_progress_handler(None, 1)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("call", SERVING)
def test_what_a_server_or_a_door_does_costs_the_same_after_many_requests(call: str) -> None:
    few, many = (steps_of(SERVING[call], number) for number in (20, 400))
    assert few > 10 and many < 1.2 * few + 20, "instructions of SQLite"
