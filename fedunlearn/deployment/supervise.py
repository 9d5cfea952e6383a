"""Keeps a live federation served: submits its run, watches it, and submits it again.

Flower does not restart a ServerApp that died, and may take a minute to notice. What a new run needs it finds in the
run directory, and goes on from there; the ledger's lease sees to it that an old one that still lives writes nothing
more. So submitting once too often is harmless, and that is what the supervisor does where it cannot know.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.deployment.superlink import RunState, SuperLink, UnreachableError
from fedunlearn.durable import write_durably
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.plurals import counted
from fedunlearn.requests import LIVE_BRANCH, OPEN, Ledger, LedgerError

MEMORY = "supervisor.json"
"""File in the run directory that names the run submitted last."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds before a run is submitted again that came to nothing; doubled each time, up to the second."""
_HOLDER = re.compile(r"flower-run-(\d+)@")


def holder_name(run: object, place: str) -> str:
    """Return what the server of a Flower run is called in the ledger; ``place`` tells processes apart."""
    return f"flower-run-{run}@{place}"


@dataclass(frozen=True)
class Standing:
    """How a federation stands, from its run directory.

    Attributes
    ----------
    open_requests : int
        Requests that have not ended.
    progress : tuple
        Grows with every round and every entry of the trail; what it is does not matter.
    server : str or None
        Flower run whose server holds the lease, or held it last.
    silent : float
        Seconds since that server was last heard of; 0 if it has given the lease back.
    serving : bool
        Whether it holds the lease now.
    """

    open_requests: int = 0
    progress: tuple[int, ...] = ()
    server: str | None = None
    silent: float = 0.0
    serving: bool = False


def standing(folder: Path, now: float) -> Standing:
    """Read how a federation stands; of one that has not begun nothing is known.

    Raises
    ------
    LedgerError
        If the ledger cannot be read.
    """
    path = folder / "requests.sqlite"
    if not path.is_file():
        return Standing()
    with Ledger(path) as ledger:
        branches = sorted({LIVE_BRANCH, *ledger.branches()})
        counts = [ledger.counts(branch) for branch in branches]
        heads = [ledger.head(branch) for branch in branches]
        leases = [lease for branch in branches if (lease := ledger.lease(branch)) is not None]
        progress = (
            sum(ledger.last_round(branch) for branch in branches),
            sum(head.entry for head in heads if head is not None),
        )
    opened = sum(number for count in counts for state, number in count.items() if state in OPEN)
    if not leases:
        return Standing(opened, progress)
    latest = max(leases, key=lambda lease: (lease.renewed_at, lease.taken_at))
    named = _HOLDER.match(latest.holder)
    silent = max(0.0, now - latest.renewed_at) if latest.renewed_at else 0.0
    return Standing(
        open_requests=opened,
        progress=progress,
        server=named[1] if named else None,
        silent=silent,
        serving=latest.held(now),
    )


class Supervisor:
    """One federation's supervisor.

    Parameters
    ----------
    link
        The SuperLink that the run is submitted to.
    folder
        The run directory.
    dead_after
        Seconds without a sign of life from the server, in the ledger, after which a run counts as dead though
        Flower still says that it is running.
    say
        Takes a line for the log.
    clock, sleep
        Unix time; and how to wait.
    """

    def __init__(
        self,
        link: SuperLink,
        folder: Path,
        *,
        dead_after: float = 30.0,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._folder = folder
        self._dead_after = dead_after
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._said = ""
        self._pauses = 0
        self._not_before = 0.0
        self._at_submission: tuple[int, ...] | None = None
        self.run = self._remembered()
        # Runs whose end by a stop is no reason to leave it at that: whoever starts the supervisor wants to go on.
        self._to_replace = {self.run}

    def watch(self, poll: float, *, until_done: bool = False) -> None:
        """Supervise: for ever, or until the run is complete and no request is open."""
        while not (self.step() and until_done):
            self._sleep(poll)

    def step(self) -> bool:
        """Look once, and do what is to be done; return whether there is nothing left to do for now."""
        try:
            now = standing(self._folder, self._clock())
            state = self._link.state(self.run) if self.run is not None else None
            if self.run is not None and state is not None and not state.ended:
                if not self._is_dead(now, state):
                    self._say_once(f"run {self.run} is {state.status}")
                    return False
                self._say(f"run {self.run}: no sign of life for {now.silent:.0f} s; stopping it")
                self._to_replace.add(self.run)
                self._link.stop(self.run)
                state = RunState("stopped", "no sign of life")
            elif self._adopts(now):
                return False
            return self._resubmitted(now, state)
        except (UnreachableError, LedgerError) as error:
            self._say_once(f"{error}; trying again")
            return False

    def _is_dead(self, now: Standing, state: RunState) -> bool:
        """Whether a run's server took the lease, has not given it back and has not been heard of for long."""
        return state.status == "running" and now.server == self.run and now.silent > self._dead_after

    def _adopts(self, now: Standing) -> bool:
        """Take up a run that serves the federation though it was not submitted from here, or has been forgotten."""
        if not now.serving or now.server is None or now.server == self.run:
            return False
        state = self._link.state(now.server)
        if state is None or state.ended:
            return False
        self._say(f"run {now.server} serves this federation already; watching it")
        self._remember(now.server, now)
        return True

    def _resubmitted(self, now: Standing, state: RunState | None) -> bool:
        """Submit the run if there is a reason to, and return whether there is none."""
        if self.run is None:
            reason = "submitted"
        elif state is None:
            reason = f"run {self.run} is unknown to the SuperLink; submitted again"
        elif state.status == "stopped" and self.run not in self._to_replace:
            # Somebody's decision, not an accident.
            self._say_once(
                f"run {self.run} was stopped; leaving it stopped with {counted(now.open_requests, 'request')} open. "
                "To continue, start the supervisor again"
            )
            return True
        elif state.status == "completed":
            if not now.open_requests:
                self._say_once(f"run {self.run} is complete; waiting for requests")
                return True
            reason = f"{counted(now.open_requests, 'request is', 'requests are')} open; submitted again"
        else:
            reason = f"run {self.run} {state.status} ({state.details or 'no reason given'}); submitted again"
        if self._pauses_first(now):
            return False
        self._remember(self._link.submit(), now)
        self._say(f"{reason} as run {self.run}")
        return False

    def _pauses_first(self, now: Standing) -> bool:
        """Whether to wait: the last run came to nothing, so the next may, too."""
        if self._at_submission is not None:
            fruitless = now.progress == self._at_submission
            self._pauses = self._pauses + 1 if fruitless else 0
            pause = min(FIRST_PAUSE * 2 ** (self._pauses - 1), LONGEST_PAUSE) if fruitless else 0.0
            self._not_before = self._clock() + pause
            self._at_submission = None
            if pause:
                self._say(f"run {self.run} made no progress; waiting {pause:.0f} s")
        return self._clock() < self._not_before

    def _remember(self, run: str, now: Standing) -> None:
        self.run, self._at_submission = run, now.progress
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_durably(self._folder / MEMORY, (json.dumps({"run": run}) + "\n").encode())
        except (
            OSError
        ) as error:  # a full disk: until there is room, only a new supervisor would not know the run
            self._say(f"{error.filename}: {error.strerror}; continuing without a record of run {run}")

    def _remembered(self) -> str | None:
        try:
            return str(loads_object((self._folder / MEMORY).read_bytes(), MEMORY)["run"])
        except FileNotFoundError:
            return None
        except (JsonError, KeyError):
            self._say(f"{self._folder / MEMORY}: is damaged; submitting again is harmless")
            return None

    def _say_once(self, line: str) -> None:
        """Say what has not just been said."""
        if line != self._said:
            self._say(line)
        self._said = line
