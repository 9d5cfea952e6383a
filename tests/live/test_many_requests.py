"""A round's bookkeeping after many requests: it goes through them a few times, not once for each other one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedunlearn.config import RequestsConfig
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger, Move
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress

NUM_CLIENTS = 100_000


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count Python's calls, every step of a generator among them."""
    calls = [0]

    def count(_: Any, event: str, __: Any) -> None:
        calls[0] += event == "call"

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def calls_of_a_round(served: int, open_: int) -> int:
    """Return the calls that it takes to plan and execute a round, after so many requests and with so many open."""
    with Ledger(":memory:") as ledger, ledger.batch():
        intake = Intake(ledger, num_clients=NUM_CLIENTS)
        ledger.commit_plan(
            LIVE_BRANCH, 1, {"round": 1, "train": list(range(50)), "forget": [], "requests": []}
        )
        done = []
        for k in range(served):
            id_ = intake.ask([1000 + k], source="http", actor=f"operator:o{k // 50}").request_id
            states = ("scheduled", "unlearning", "recovering", "forgotten")
            ledger.transition_many(LIVE_BRANCH, [Move(id_, state, 2) for state in states])
            done.append(
                RequestProgress(id_, (1000 + k,), 1, unlearned_round=2, ended_round=2, outcome="recovered")
            )
        ledger.commit_plan(LIVE_BRANCH, 2, {"round": 2, "train": [0], "forget": [], "requests": []})
        for k in range(open_):  # each client once, and then again
            intake.ask([k % 20], source="http", actor=f"operator:p{k // 50}")
        rules = RequestsConfig()
        docket = LiveDocket(
            ledger, LIVE_BRANCH, forgets=True, max_attempts=3, rules=rules, num_clients=NUM_CLIENTS
        )
        docket.requests = tuple(done)
        docket.reconcile(2)  # what a server that begins does once
        with counted() as calls:
            plan, _ = docket.plan(3, lambda forget, gone, step: RoundPlan(3, (30, 31), forget))
            docket.begin(plan)
            docket.apply(plan, {}, delivered=plan.forget)
            assert docket.objection_on_record(plan) is None
            docket.reconcile(3)
        assert len(plan.requests) == min(20, open_) == len(plan.forget)
        states = ledger.counts(LIVE_BRANCH)
        assert states == {"forgotten": served, "recovering": 20, "duplicate": open_ - 20}
        assert docket.forgotten == {*range(20), *(1000 + k for k in range(served))}
    return calls[0]


def test_it_grows_with_the_requests_of_before_by_a_few_passes_only() -> None:
    few, many = calls_of_a_round(50, 60), calls_of_a_round(650, 60)
    assert (many - few) / 600 < 25, "calls for each request that has been served before"


def test_it_grows_with_the_open_requests_in_proportion() -> None:
    few, many = calls_of_a_round(50, 60), calls_of_a_round(50, 360)
    assert (many - few) / 300 < 1.5 * few / 60, "calls for each open request"
