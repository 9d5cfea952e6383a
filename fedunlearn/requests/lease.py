"""The right to be a federation's server: one holder at a time, and whoever lost it cannot write any more.

A server that is cut off may still live while another takes its place. Times only decide when another *may* take
over; that the earlier one stops is decided by the *token*, which grows with every taking and which the earlier one's
next write finds changed, inside the very transaction that would have written. So a wrong clock costs a changeover at
most, never two writers. A holder that is known to have died, a process of this machine, is not waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedunlearn.errors import RunError
from fedunlearn.requests import processes
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError

_POLL_SECONDS = 0.1


class LeaseHeldError(RunError):
    """Another server holds the lease and has renewed it not long ago."""


class FencedError(RunError):
    """Another server has taken over: this one must stop. Nothing was written."""


@dataclass(frozen=True)
class ServerRecord:
    """One taking of the lease: who took it, when (Unix seconds), and the token it was given."""

    token: int
    holder: str
    taken_at: float


@dataclass(frozen=True)
class LeaseRecord:
    """The lease as it stands: it runs out `seconds` after `renewed_at` (Unix seconds; 0 once it was released).

    `process` is the holder's `processes.identity`, or "".
    """

    token: int
    holder: str
    taken_at: float
    renewed_at: float
    seconds: float
    process: str = ""

    def held(self, now: float) -> bool:
        """Whether it has neither run out nor been given back, and its holder is not known to have died."""
        running = bool(self.renewed_at) and now - self.renewed_at <= self.seconds
        return running and not processes.is_dead(self.process)


def read(store: Store, branch: str) -> LeaseRecord | None:
    """Return a branch's lease, or None if nobody ever took it."""
    row = store.row("SELECT * FROM leases WHERE branch = ?", branch)
    if row is None:
        return None
    return LeaseRecord(
        row["token"], row["holder"], row["taken_at"], row["renewed_at"], row["seconds"], row["process"]
    )


def servers(store: Store, branch: str) -> list[ServerRecord]:
    """Return everyone who ever held a branch's lease, in order."""
    rows = store.rows("SELECT * FROM servers WHERE branch = ? ORDER BY token", branch)
    return [ServerRecord(row["token"], row["holder"], row["taken_at"]) for row in rows]


class Lease:
    """A lease that was taken; see `Ledger.take_lease`.

    Attributes
    ----------
    branch, holder
        Of what, and by whom.
    token
        Grows by one with every taking.
    lost
        Whether another is known to have taken over.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float], branch: str, server: ServerRecord, seconds: float
    ) -> None:
        self.branch = branch
        self.holder = server.holder
        self.token = server.token
        self.seconds = seconds
        self.lost = False
        self._taken_at = server.taken_at
        self._store = store
        self._clock = clock

    def check(self) -> None:
        """Do nothing if the lease is still this one.

        Certain until the end of a transaction if it is asked within one, as every write of its ledger does;
        otherwise true only of this moment.

        Raises
        ------
        FencedError
            Another has taken over, or the file is not the one any more that the lease was taken in.
        """
        if not self._store.lies_where_opened():
            self.lost = True
            raise FencedError(
                f"{self._store.place}: was replaced while {self.holder} served {self.branch!r}; it stops, and "
                "nothing was written"
            )
        found = read(self._store, self.branch)
        mine = (self.token, self.holder, self._taken_at)
        # Not the token alone: a ledger restored from a backup gives out the same ones again.
        if found is None or (found.token, found.holder, found.taken_at) != mine:
            self.lost = True
            other = "nobody" if found is None else f"{found.holder} (token {found.token})"
            raise FencedError(
                f"the lease of {self.branch!r} is now with {other}: {self.holder} (token {self.token}) stops, and "
                "nothing was written"
            )

    def renew(self) -> None:
        """Begin the lease's term anew; FencedError if another has taken over."""
        with self._store.batch():
            self.check()
            self._set_renewed(self._clock())

    def release(self) -> None:
        """Give the lease back, so that the next server need not wait.

        Does nothing if it was lost or the file cannot be written: it then runs out by itself.
        """
        try:
            with self._store.batch():
                self.check()
                self._set_renewed(0.0)
        except (FencedError, LedgerError):
            return

    @contextmanager
    def keep_alive(self) -> Iterator[Lease]:
        """Renew every third of the term from a thread of its own, until the block is left.

        The thread ends when the lease is lost; the block's next write then raises FencedError, or `check` does.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(done,), name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()

    def _renew_until(self, done: threading.Event) -> None:
        while not done.wait(self.seconds / 3):
            try:
                self.renew()
            except FencedError:
                return
            except LedgerError:  # a full disk, a busy file: the next time may do
                continue

    def _set_renewed(self, at: float) -> None:
        self._store.rows("UPDATE leases SET renewed_at = ? WHERE branch = ?", at, self.branch)


def take(
    store: Store, clock: Callable[[], float], branch: str, holder: str, *, seconds: float, wait: float
) -> Lease:
    """Take a branch's lease; see `Ledger.take_lease`."""
    if not holder or not seconds > 0:
        raise LedgerError(
            f"lease of {branch!r}: needs a holder's name and a term > 0 s, not {holder!r}, {seconds}"
        )
    began = time.monotonic()
    seen: LeaseRecord | None = None
    since = began
    while True:
        with store.batch():
            found = read(store, branch)
            now = time.monotonic()
            if found != seen:
                seen, since = found, now
            # Renewed last under a clock that was ahead: the term is then counted from when we began to look.
            if found is None or _may_take(found, holder, clock(), now - since):
                return _write(store, clock, branch, holder, seconds, found)
        left = began + wait - time.monotonic()
        if left <= 0:
            raise LeaseHeldError(
                f"{found.holder} serves {branch!r}: stop it first, or wait until its lease expires, "
                f"{found.seconds:g} s after the last renewal"
            )
        time.sleep(min(left, _POLL_SECONDS))


def _may_take(found: LeaseRecord, holder: str, now: float, watched: float) -> bool:
    over = now >= found.renewed_at + found.seconds or watched >= found.seconds
    return found.holder == holder or over or processes.is_dead(found.process)


def _write(
    store: Store,
    clock: Callable[[], float],
    branch: str,
    holder: str,
    seconds: float,
    before: LeaseRecord | None,
) -> Lease:
    # The record of servers as well, should the lease itself have been deleted.
    (highest,) = store.rows("SELECT coalesce(max(token), 0) AS token FROM servers WHERE branch = ?", branch)
    token = 1 + max(highest["token"], 0 if before is None else before.token)
    now = float(clock())
    store.rows(
        "INSERT OR REPLACE INTO leases (branch, token, holder, taken_at, renewed_at, seconds, process) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(branch, token, holder, now, now, float(seconds), processes.identity()),
    )
    store.rows(
        "INSERT INTO servers (branch, token, holder, taken_at) VALUES (?, ?, ?, ?)",
        branch,
        token,
        holder,
        now,
    )
    return Lease(store, clock, branch, ServerRecord(token, holder, now), seconds)
