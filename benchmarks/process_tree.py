"""All processes that a command has started, wherever they went, and the end of them.

A daemon leaves its parent and its session, and a process that renames itself (Ray's do) writes over its own
environment. So a process belongs to the tree if a variable in its environment says so, if its parent belongs, or
if it belonged when it was last looked at. Linux only: it reads /proc.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fedunlearn.errors import RunError

PROC = Path("/proc")
VARIABLE = "FEDUNLEARN_BENCHMARK"


class Process(NamedTuple):
    """A process, told apart by its start from a later one of the same number."""

    pid: int
    start: int  # ticks since boot


class ProcessTree:
    """The living processes of a command, found anew at every look.

    Parameters
    ----------
    root
        A process that belongs to the tree with all its descendants; None if there is only the mark.

    Attributes
    ----------
    environment : dict[str, str]
        The mark: what the command's environment must contain.
    """

    def __init__(self, root: int | None = None) -> None:
        mark = uuid.uuid4().hex
        self.environment = {VARIABLE: mark}
        self._entry = f"{VARIABLE}={mark}".encode()
        self._lock = threading.Lock()
        self._strangers = set[Process]()
        living = {process for process, _ in _living()}
        self._members = {process for process in living if process.pid == root}
        self._strangers = living - set(self.find())  # what already runs will not join

    def find(self) -> list[Process]:
        """Return the members that live now, by process number."""
        with self._lock:
            parents = dict(_living())
            self._members &= parents.keys()
            self._strangers &= parents.keys()
            unknown = parents.keys() - self._members - self._strangers
            self._members |= {process for process in unknown if self._entry in _environment(process.pid)}
            pids = {process.pid for process in self._members}
            # A parent may have a higher number than its child, once numbers have wrapped around.
            while found := {p for p in unknown - self._members if parents[p] in pids}:
                self._members |= found
                pids |= {process.pid for process in found}
            return sorted(self._members)

    def stop(self, patience: float = 5.0) -> None:
        """End every member but this process: ask, wait up to ``patience`` seconds, then kill.

        Raises
        ------
        RunError
            If some still live as many seconds after they were killed.
        """
        began = time.monotonic()
        asked = set[Process]()
        while members := [process for process in self.find() if process.pid != os.getpid()]:
            waited = time.monotonic() - began
            if waited > 2 * patience + 1:
                raise RunError(f"processes {[process.pid for process in members]} were killed but do not end")
            if waited < patience:
                _signal([process for process in members if process not in asked], signal.SIGTERM)
                asked.update(members)
            else:
                _signal(members, signal.SIGKILL)
            time.sleep(0.02)


def _living() -> Iterable[tuple[Process, int]]:
    """Yield every process and its parent's number; the dead that nobody has collected yet are left out."""
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        try:
            stat = (PROC / entry.name / "stat").read_text(encoding="utf-8")
        except OSError:  # it has ended
            continue
        state, parent, *rest = stat.rpartition(")")[2].split()  # the name before may contain anything
        if state not in "ZX":
            yield Process(int(entry.name), int(rest[17])), int(parent)


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []


def _signal(processes: Iterable[Process], number: signal.Signals) -> None:
    living = {process for process, _ in _living()}
    for process in living.intersection(processes):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, number)
