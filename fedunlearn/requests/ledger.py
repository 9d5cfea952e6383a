"""The ledger of forget requests: what was asked, what was planned, what became of it.

One file per run, every federation in it (a *branch*) under its own name. The server writes; others may read
and submit at the same time. A call that returned is on the disk; one that raised has changed nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from fedunlearn.requests import history, journal, plans
from fedunlearn.requests.reconcile import moves_to
from fedunlearn.requests.records import AuditEntry, Move, PlanRecord, RequestRecord, canonical_json
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import INITIAL, STATES, LedgerError, RequestConflictError

# Scripted requests in the order of their rounds, then live ones as they came.
_ORDER = "ORDER BY at_round IS NULL, coalesce(at_round, arrival), id"


class Ledger:
    """The durable record of forget requests and of the plans of rounds.

    Parameters
    ----------
    path
        The SQLite file (made if missing), or ":memory:" for one that ends with the process.
    clock
        Source of the audit trail's times, in Unix seconds.

    Raises
    ------
    LedgerError
        The file cannot be opened, is no ledger, or comes from a newer version. Every method raises it when
        the file cannot be read or written.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self._store = Store(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._store.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def batch(self) -> AbstractContextManager[None]:
        """Group calls into one transaction, and thus one fsync: ``with ledger.batch(): …``.

        All of it is committed at the end, or none when an error leaves the block. Submitters in other
        processes wait meanwhile, so nothing slow belongs inside.
        """
        return self._store.batch()

    def submit(
        self,
        branch: str,
        *,
        request_id: str,
        clients: Iterable[int],
        at_round: int | None = None,
        source: str = "experiment",
    ) -> None:
        """Record a request to forget a set of clients; the same one again is no second request.

        Raises
        ------
        RequestConflictError
            The id is taken in this branch by a request for other clients or another round (also a
            ValueError).
        LedgerError
            The request names no client, one that is no number, or a negative round.
        """
        asked = tuple(clients)
        if not request_id or not asked or not all(type(client) is int and client >= 0 for client in asked):
            raise LedgerError(
                f"request {request_id!r} for clients {asked}: needs an id and client numbers >= 0"
            )
        if at_round is not None and (type(at_round) is not int or at_round < 0):
            raise LedgerError(f"request {request_id!r}: at_round = {at_round!r} must be a round >= 0 or None")
        wanted = tuple(sorted(set(asked)))
        with self.batch():
            known = journal.find(self._store, branch, request_id)
            if known is not None and (known.clients, known.at_round) != (wanted, at_round):
                raise RequestConflictError(
                    f"request {request_id!r} of branch {branch!r} already asks for clients {known.clients} "
                    f"at round {known.at_round}: clients {wanted} at round {at_round} need another id"
                )
            if known is None:
                last = self._store.row(
                    "SELECT max(arrival) AS arrival FROM requests WHERE branch = ?", branch
                )
                arrival = 1 + (last["arrival"] or 0 if last else 0)
                self._store.rows(
                    "INSERT INTO requests (branch, id, clients, at_round, source, arrival, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    *(branch, request_id, canonical_json(wanted), at_round, source, arrival, INITIAL),
                )
                arrived = Move(request_id, INITIAL, at_round, source)
                journal.append(self._store, branch, arrived, None, self._clock())

    def requests(self, branch: str, states: Iterable[str] | None = None) -> list[RequestRecord]:
        """Return the branch's requests, optionally only those in `states`.

        Ordered by (at_round, id); requests without a round come last, in order of arrival.
        """
        wanted = tuple(STATES if states is None else states)
        if unknown := set(wanted) - set(STATES):
            raise LedgerError(f"unknown state {min(unknown)!r}: must be one of {', '.join(STATES)}")
        marks = ", ".join("?" * len(wanted))
        sql = f"SELECT * FROM requests WHERE branch = ? AND state IN ({marks}) {_ORDER}"
        return [history.request_record(row) for row in self._store.rows(sql, branch, *wanted)]

    def request(self, branch: str, request_id: str) -> RequestRecord:
        """Return one request; an unknown one raises LedgerError."""
        return journal.get(self._store, branch, request_id)

    def due(self, branch: str, round: int) -> list[RequestRecord]:
        """Return the requests that the plan of `round` may take up: open, and arrived before it.

        Where others may withdraw meanwhile, ask and `commit_plan` inside one `batch`.
        """
        open_requests = self.requests(branch, (INITIAL, "waiting"))
        return [record for record in open_requests if record.at_round is None or record.at_round < round]

    def branches(self) -> list[str]:
        """Return the names of all branches that hold a request or a plan, in alphabetical order."""
        rows = self._store.rows("SELECT branch FROM requests UNION SELECT branch FROM plans ORDER BY branch")
        return [str(row["branch"]) for row in rows]

    def commit_plan(self, branch: str, round: int, plan: Mapping[str, Any]) -> None:
        """Commit the plan of a round and schedule its requests, in one transaction.

        Parameters
        ----------
        plan
            JSON types only; ``plan["requests"]`` lists the ids of the requests that the round unlearns.

        Raises
        ------
        LedgerError
            The round has another plan already, or a request is unknown or cannot be scheduled. The same plan
            again changes nothing: that is how a round is executed a second time.
        """
        if "requests" not in plan:
            raise LedgerError(f"the plan of round {round} lacks 'requests': the ids it unlearns, [] for none")
        with self.batch():
            if plans.insert(self._store, branch, round, plan):
                self.transition_many(branch, [Move(name, "scheduled", round) for name in plan["requests"]])

    def plan(self, branch: str, round: int) -> PlanRecord | None:
        """Return the committed plan of a round, or None."""
        found = plans.read(self._store, branch, round)
        return found[0] if found else None

    def plans(self, branch: str) -> list[PlanRecord]:
        """Return all committed plans of a branch, by round."""
        return plans.read(self._store, branch)

    def record_failures(self, branch: str, round: int, failed: Mapping[int, str]) -> None:
        """Record which clients of a planned round did not deliver, and why; an empty mapping counts too.

        Raises
        ------
        LedgerError
            The round has no plan, or other failures were recorded for it: they are final, for a replay must
            leave out the same clients. The same ones again change nothing.
        """
        with self.batch():
            plans.answer(self._store, branch, round, failed)

    def transition(self, branch: str, request_id: str, to: str, *, round: int, detail: str = "") -> None:
        """Move one request to another state; see `transition_many`."""
        self.transition_many(branch, [Move(request_id, to, round, detail)])

    def transition_many(self, branch: str, moves: Iterable[Move]) -> None:
        """Make several transitions in the given order, in one transaction (one fsync).

        A transition that the audit trail already has (same request, state and round) changes nothing: a
        round that is executed again after a crash makes its transitions again.

        Raises
        ------
        LedgerError
            A request is unknown or the table of transitions forbids a step; none of them is made.
        """
        with self.batch():
            for move in moves:
                journal.move(self._store, branch, move, self._clock())

    def reconcile(self, branch: str, states: Mapping[str, tuple[str, int]]) -> list[AuditEntry]:
        """Bring the ledger to what a checkpoint says, by legal steps only, in one transaction.

        Parameters
        ----------
        states
            Request id → (state, round in which it entered that state), as the checkpoint holds them.
            Requests that are not named keep their state; so do those of which the ledger knows more than the
            checkpoint (see `fedunlearn.requests.reconcile`).

        Returns
        -------
        list of AuditEntry
            The transitions made, in order.

        Raises
        ------
        LedgerError
            The checkpoint names a request the ledger does not have, or contradicts it; nothing is changed.
        """
        with self.batch():
            before = len(self.audit(branch))
            for request_id, (state, round) in states.items():
                self.transition_many(branch, moves_to(self.request(branch, request_id), state, round))
            return self.audit(branch)[before:]

    def audit(self, branch: str | None = None) -> list[AuditEntry]:
        """Return the audit trail, of one branch or of all, in the order in which it was written."""
        where, values = ("", ()) if branch is None else ("WHERE branch = ?", (branch,))
        rows = self._store.rows(f"SELECT * FROM audit {where} ORDER BY seq", *values)
        return [AuditEntry(**dict(row)) for row in rows]

    def export(self, branch: str) -> dict[str, Any]:
        """Return all the ledger holds of a branch, as JSON types; `load` reads it back."""
        with self.batch():
            return history.export(self._store, branch)

    def load(self, branch: str, exported: Mapping[str, Any]) -> None:
        """Replace a branch by an exported one (of any name), in one transaction."""
        with self.batch():
            history.replace(self._store, branch, exported)
