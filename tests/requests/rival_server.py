"""A server in a process of its own, for `test_lease`: takes the lease and writes as often as it can; when it has lost
the lease it begins anew, under another name.

``rival_server.py FOLDER NAME`` writes numbers to the ledger (as plans) and beside it (a line per plan in log.txt),
fenced, until there is a file FOLDER/stop. It prints "fenced" and its token whenever another has taken over.
"""

import itertools
import os
import sys
import time
from pathlib import Path

from fedunlearn.requests import FencedError, LeaseHeldError, Ledger


def serve(folder: Path, name: str) -> None:
    """Write for as long as the lease is ours."""
    with Ledger(folder / "requests.sqlite") as ledger:
        lease = ledger.take_lease("b", name, seconds=0.7, wait=1.0)
        try:
            with lease.keep_alive(), (folder / "log.txt").open("a") as log:
                while not (folder / "stop").exists():
                    with ledger.fenced():
                        round = ledger.last_round("b") + 1
                        ledger.commit_plan("b", round, {"requests": [], "by": lease.token})
                        log.write(f"{round} {lease.token}\n")
                        log.flush()
                    time.sleep(0.01)  # where a real one trains
        except FencedError:
            print(f"fenced {lease.token}", flush=True)


def main(folder: Path, name: str) -> None:
    """Serve again and again."""
    for attempt in itertools.count():
        if (folder / "stop").exists():
            break
        try:
            serve(folder, f"{name}-{os.getpid()}-{attempt}")
        except LeaseHeldError:
            continue


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
