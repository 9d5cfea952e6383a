"""Calls on a ledger, killed before their N-th SQL statement, for every N.

``killed_server.py FOLDER SCRIPT`` leaves ``N.sqlite`` and ``N.log`` there, a line for each call that returned. The
tests import the scripts from here, to know what each of the calls leaves behind.
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedunlearn.requests import Intake, Ledger, Move, NotWithdrawableError
from fedunlearn.requests.store import Store

Call = Callable[[Ledger], object]


def ask(clients: list[int], key: str, actor: str = "operator:x") -> Call:
    """Return the call of somebody who asks, and asks again under the same key if no answer came."""
    return lambda ledger: Intake(ledger, "b", num_clients=9).ask(
        clients, source="http", actor=actor, idempotency_key=key
    )


def withdraw(arrival: int) -> Call:
    """Return the call of somebody who takes the n-th request back, and takes "it is withdrawn" for an answer."""

    def call(ledger: Ledger) -> None:
        (request_id,) = (r.id for r in ledger.requests("b") if r.arrival == arrival)
        try:
            Intake(ledger, "b", num_clients=9).withdraw(request_id, actor="operator:x")
        except NotWithdrawableError as error:
            assert error.state == "withdrawn"

    return call


def forget_first(ledger: Ledger) -> None:
    """Apply the first request to the weights."""
    (first,) = (r.id for r in ledger.requests("b") if r.arrival == 1)
    with ledger.batch():
        ledger.commit_plan("b", 1, {"requests": [first]})
        ledger.transition_many("b", [Move(first, "unlearning", 1), Move(first, "recovering", 1)])


SERVER: tuple[Call, ...] = (
    lambda ledger: ledger.submit("b", request_id="r1", clients=[1, 2], at_round=1),
    lambda ledger: ledger.submit("b", request_id="r2", clients=[3], at_round=1),
    lambda ledger: ledger.commit_plan("b", 2, {"requests": ["r1", "r2"], "scale": 2.0}),
    lambda ledger: ledger.transition_many("b", [Move("r1", "unlearning", 2), Move("r2", "unlearning", 2)]),
    lambda ledger: ledger.record_failures("b", 2, {7: "lost"}),
    lambda ledger: ledger.reconcile("b", {"r1": ("forgotten", 2), "r2": ("waiting", 2)}),
    lambda ledger: ledger.note_measures("b", "r1", "before", {"accuracy": 90.5}),
    lambda ledger: ledger.load("copy", ledger.export("b")),
)
INTAKE: tuple[Call, ...] = (
    ask([1, 2], "k1"),
    ask([2], "k2", actor="client:2"),
    ask([3], "k3"),
    withdraw(3),
    forget_first,
    ask([1], "k4"),
    ask([4, 5, 6], "k5"),
)
SCRIPTS: dict[str, tuple[Call, ...]] = {"server": SERVER, "intake": INTAKE, "opening": ()}


def open_quickly(place: Path) -> Ledger:
    """Open a ledger that survives the death of its process, but no power cut: that is not tried here."""
    ledger = Ledger(place)
    ledger.store.rows("PRAGMA synchronous = OFF")
    return ledger


def snapshot(ledger: Ledger) -> dict[str, Any]:
    """Return everything the ledger holds, but for the times, and requests by their place instead of random ids."""
    branches = {branch: ledger.export(branch) for branch in ledger.branches()}
    for exported in branches.values():
        for entry in exported["audit"]:
            del entry["at"], entry["asked"]  # of random ids
        for request in exported["requests"]:
            del request["arrived_at"]
    for branch in branches:
        assert ledger.check_trail(branch) == []
    keys = ledger.store.rows("SELECT branch, actor, id FROM keys ORDER BY branch, actor, key_hash")
    measures = ledger.store.rows("SELECT * FROM measures")
    text = json.dumps([branches, [tuple(row) for row in keys], [tuple(row) for row in measures]])
    for branch in branches:
        for record in ledger.requests(branch):
            if record.source == "http":
                text = text.replace(record.id, f"#{record.arrival}")
    content: dict[str, Any] = {"ledger": json.loads(text)}
    for exported in content["ledger"][0].values():
        exported["requests"].sort(key=lambda request: request["arrival"])
    return content


def serve(folder: Path, deadly: int, script: str) -> None:
    """Make all calls, noting each one that returned; kill the process before statement `deadly`."""
    place = folder / f"{deadly}.sqlite"
    execute, count = Store.rows, 0

    def counted(self: Store, sql: str, *values: Any) -> Any:
        nonlocal count
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return execute(self, sql, *values)

    Store.rows = counted  # type: ignore[method-assign]
    with (folder / f"{deadly}.log").open("w") as log:
        ledger = open_quickly(place)
        for number, call in enumerate(SCRIPTS[script]):
            call(ledger)
            print(number, file=log, flush=True)


def main(folder: Path, script: str) -> None:
    """Serve in a child per statement, until one lives to the end."""
    for deadly in itertools.count():
        child = os.fork()
        if child == 0:
            serve(folder, deadly, script)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
