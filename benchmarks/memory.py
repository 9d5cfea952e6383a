"""Peak memory of a process tree: the sum of proportional set sizes, sampled by a thread.

The proportional set size (PSS) of a process counts a page that n processes have in memory 1/n times, so that
the sum over a tree counts shared libraries and Ray's shared object store once. (What is shared with a process
outside the tree counts in part.) The kernel walks a process's page tables for it, which takes milliseconds
per process; the thread therefore rests at least :data:`REST` times as long as a look took, and says what
all looks cost. A peak between two looks is missed.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from benchmarks.process_tree import PROC, ProcessTree

INTERVAL = 0.2
"""Seconds between two looks."""
REST = 19
"""Least rest between two looks over the time of a look: at most 5 % of one core goes into looking."""


class PeakMemory:
    """A context that watches a process tree while it is open.

    Attributes
    ----------
    peak : int or None
        Largest sum seen, in bytes; None where the kernel does not tell (anything but Linux).
    at_peak : dict[str, int]
        Bytes at that moment by name of process (its first 15 characters), largest first.
    looks : int
        Number of samples.
    seconds : float
        What they took altogether.
    """

    def __init__(self, tree: ProcessTree, interval: float = INTERVAL) -> None:
        self.peak: int | None = None
        self.at_peak: dict[str, int] = {}
        self.looks = 0
        self.seconds = 0.0
        self._tree = tree
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if (PROC / "self" / "smaps_rollup").exists():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.ident is not None:
            self._done.set()
            self._thread.join()
            self.look()

    def look(self) -> int:
        """Take a sample and return it."""
        began = time.perf_counter()
        sizes = {process: pss(process.pid) for process in self._tree.find()}
        total = sum(sizes.values())
        if total > (self.peak or -1):
            self.peak = total
            self.at_peak = {}
            for process, size in sorted(sizes.items(), key=lambda item: -item[1]):
                name = _name(process.pid)
                self.at_peak[name] = self.at_peak.get(name, 0) + size
        self.looks += 1
        self.seconds += time.perf_counter() - began
        return total

    def _watch(self) -> None:
        rest = 0.0
        while not self._done.wait(rest):
            before = self.seconds
            self.look()
            rest = max(self._interval, REST * (self.seconds - before))


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes; 0 if it has ended."""
    try:
        return parse_pss((PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8"))
    except OSError:
        return 0


def parse_pss(rollup: str) -> int:
    """Return the bytes that the text of a ``smaps_rollup`` names as ``Pss``."""
    for line in rollup.splitlines():
        name, _, size = line.partition(":")
        if name == "Pss":
            number, unit = size.split()
            if unit != "kB":
                raise ValueError(f"smaps_rollup: {line!r}: sizes must be in kB")
            return 1024 * int(number)
    return 0  # a process that is about to end has no memory any more


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "ended"
