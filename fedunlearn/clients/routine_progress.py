"""How far a client's local routine is: a line in the log every few seconds, for a routine may take hours."""

from __future__ import annotations

import time
from logging import INFO

from flwr.common.logger import log

from fedunlearn.unlearning.contract import Report


class RoutineProgress:
    """Told after every step of a routine; see :class:`~fedunlearn.unlearning.contract.Conditions`.

    Parameters
    ----------
    who
        Whose routine it is, and which: how its lines begin.
    every_seconds
        A line comes after so many seconds at the earliest, and so does the next one; a short routine has none.
    """

    def __init__(self, who: str, *, every_seconds: float = 5.0) -> None:
        self.loss = 0.0
        """Of the last step."""
        self._who = who
        self._every = every_seconds
        self._last = time.monotonic()

    def __call__(self, report: Report) -> None:
        self.loss = report.loss
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            log(INFO, "%s: step %s of %s", self._who, f"{report.step:,}", f"{report.steps:,}")
