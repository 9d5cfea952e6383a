"""A Ray worker is killed while it trains: the federation must end in the very weights it would have ended in."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from benchmarks import rows
from benchmarks.cases import CASES, Case
from benchmarks.process_tree import PROC, ProcessTree
from benchmarks.results import Check
from benchmarks.rows import Row, UnavailableError
from fedunlearn.errors import RunError

CASE = "resnet18-10x8"
ROUNDS = 3
KILL_IN_ROUND = 2
AT_WORK = b"ray::RayWorker.train"
"""What Ray calls a worker's process while it trains."""


def killed_worker(case: Case | None = None) -> Check:
    """Run a federation on two Ray workers, kill one, and compare with the local engine bit for bit."""
    case = case or CASES[CASE]
    what, goal = f"Ray worker killed while it trains, {case.title}", "same weights, no failed client"
    with tempfile.TemporaryDirectory(prefix="fedunlearn-") as name, ExitStack() as stack:
        folder = Path(name)
        try:
            ray, local = (rows.make(row, case, folder, 2) for row in ("ray", "local"))
        except UnavailableError as error:
            return Check(what, goal, f"n/a: {error}", None)
        stack.callback(ray.close)
        stack.callback(local.close)
        try:
            killed = _train(ray, kill_in_round=KILL_IN_ROUND)
        except RunError as error:  # the quorum is 1: a failed client ends the run
            return Check(what, goal, str(error).splitlines()[0], False)
        _train(local)
        difference = (ray.vector() - local.vector()).abs().max().item()
    if not killed:
        return Check(what, goal, "n/a: no worker was found at work", None)
    return Check(
        what,
        goal,
        "same bits, none failed" if difference == 0 else f"differs by {difference:.0e}",
        not difference,
    )


def _train(row: Row, kill_in_round: int = 0) -> bool:
    """Train some rounds, kill a worker in one of them, and say whether one was killed."""
    killed = False
    for number in range(1, ROUNDS + 1):
        row.prepare(number, row.vector())
        if number != kill_in_round:
            row.run()
            continue
        over = threading.Event()
        victim: list[int] = []
        killer = threading.Thread(target=_kill_one_at_work, args=(over, victim))
        killer.start()
        try:
            row.run()
        finally:
            over.set()
            killer.join()
        killed = bool(victim)
    return killed


def _kill_one_at_work(over: threading.Event, victim: list[int]) -> None:
    """Kill the first of this process's Ray workers that is seen training."""
    tree = ProcessTree(os.getpid())
    while not over.wait(0.005):
        for process in tree.find():
            if _command(process.pid).startswith(AT_WORK):
                os.kill(process.pid, signal.SIGKILL)
                victim.append(process.pid)
                return


def _command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""
