"""A server's calls on a ledger, killed before its N-th SQL statement, for every N.

``killed_server.py FOLDER`` leaves ``N.sqlite`` and ``N.log`` there, a line for each call that returned.
`test_durability` imports the calls from here, to know what each of them leaves behind.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedunlearn.requests import Ledger, Move
from fedunlearn.requests.store import Store

CALLS: tuple[Callable[[Ledger], object], ...] = (
    lambda ledger: ledger.submit("b", request_id="r1", clients=[1, 2], at_round=1),
    lambda ledger: ledger.submit("b", request_id="r2", clients=[3], at_round=1),
    lambda ledger: ledger.commit_plan("b", 2, {"requests": ["r1", "r2"], "scale": 2.0}),
    lambda ledger: ledger.transition_many("b", [Move("r1", "unlearning", 2), Move("r2", "unlearning", 2)]),
    lambda ledger: ledger.record_failures("b", 2, {7: "lost"}),
    lambda ledger: ledger.reconcile("b", {"r1": ("forgotten", 2), "r2": ("waiting", 2)}),
    lambda ledger: ledger.load("copy", ledger.export("b")),
)


def snapshot(ledger: Ledger) -> dict[str, Any]:
    """Return everything the ledger holds, but for the times."""
    branches = {branch: ledger.export(branch) for branch in ledger.branches()}
    for exported in branches.values():
        for entry in exported["audit"]:
            del entry["at"]
    return branches


def serve(folder: Path, deadly: int) -> None:
    """Make all calls, noting each one that returned; kill the process before statement `deadly`."""
    ledger = Ledger(folder / f"{deadly}.sqlite")
    execute, count = Store.rows, 0

    def counted(self: Store, sql: str, *values: Any) -> Any:
        nonlocal count
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return execute(self, sql, *values)

    Store.rows = counted  # type: ignore[method-assign]
    with (folder / f"{deadly}.log").open("w") as log:
        for number, call in enumerate(CALLS):
            call(ledger)
            print(number, file=log, flush=True)


def main(folder: Path) -> None:
    """Serve in a child per statement, until one lives to the end."""
    for deadly in itertools.count():
        child = os.fork()
        if child == 0:
            serve(folder, deadly)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
