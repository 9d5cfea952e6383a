"""The ledger of forget requests: what was asked, what was planned, what became of it.

One file per run, every federation in it (a *branch*) under its own name. The server writes; others may read
and submit at the same time. A call that returned is on the disk; one that raised has changed nothing. A live
federation's server takes a lease first: once another server has taken it over, every write of this object raises.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from fedunlearn.requests import history, journal, lease, measures, plans, signed_heads, trail
from fedunlearn.requests.chain import SignedHead
from fedunlearn.requests.lease import Lease
from fedunlearn.requests.read_only import ReadOnlyStore
from fedunlearn.requests.reading import LedgerReader
from fedunlearn.requests.reconcile import RECONCILED, moves_to
from fedunlearn.requests.records import AuditEntry, Move
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError, RequestConflictError


class Ledger(LedgerReader):
    """The durable record of forget requests and of the plans of rounds.

    Parameters
    ----------
    path
        The SQLite file (made if missing), or ":memory:" for one that ends with the process.
    clock
        Source of the audit trail's times, in Unix seconds.
    read_only
        Open a file that is there, to read alone: nothing is written, not even beside it.

    Raises
    ------
    LedgerError
        The file cannot be opened, is no ledger, or is of another version. Every method raises it when
        the file cannot be read or written.
    """

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time, read_only: bool = False
    ) -> None:
        self.store = ReadOnlyStore(path) if read_only else Store(path)
        self.clock = clock
        self._leases: dict[str, Lease] = {}
        self._knows: dict[str, Callable[[int], bool]] = {}  # branch → whether it has a client or part

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self.store.close()

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
        return self.store.batch()

    def takes_requests(self, branch: str, knows: Callable[[int], bool]) -> None:
        """Say that a branch is served by this process, and which clients and parts it has; for :meth:`submit`."""
        self._knows[branch] = knows

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
            The request names no client, one that is no number or that its federation does not have, or a negative
            round; or, in a process that serves federations, none of them is called `branch`.
        """
        asked = tuple(clients)
        if not request_id or not asked or not all(type(client) is int and client >= 0 for client in asked):
            raise LedgerError(
                f"request {request_id!r} for clients {asked}: needs an id and client numbers >= 0"
            )
        if at_round is not None and (type(at_round) is not int or at_round < 0):
            raise LedgerError(f"request {request_id!r}: at_round = {at_round!r} must be a round >= 0 or None")
        wanted = tuple(sorted(set(asked)))
        if self._knows:
            if branch not in self._knows:
                served = ", ".join(map(repr, sorted(self._knows)))
                raise LedgerError(
                    f"request {request_id!r}: there is no federation {branch!r}; there are {served}"
                )
            if unknown := [number for number in wanted if not self._knows[branch](number)]:
                raise LedgerError(f"request {request_id!r}: branch {branch!r} has no client {unknown[0]}")
        with self.batch():
            known = journal.find(self.store, branch, request_id)
            if known is not None and (known.clients, known.at_round) != (wanted, at_round):
                raise RequestConflictError(
                    f"request {request_id!r} of branch {branch!r} already asks for clients {known.clients} "
                    f"at round {known.at_round}: clients {wanted} at round {at_round} need another id"
                )
            if known is None:
                at = self.clock()
                journal.arrive(self.store, branch, request_id, wanted, at, at_round=at_round, source=source)

    def commit_plan(self, branch: str, round: int, plan: Mapping[str, Any]) -> None:
        """Commit the plan of a round and schedule its requests, in one transaction.

        Parameters
        ----------
        plan
            JSON types only; ``plan["requests"]`` lists the ids of the requests that the round unlearns. Those whose
            unlearning it goes on with (``plan["step"]``) are not scheduled once more.

        Raises
        ------
        LedgerError
            The round has another plan already, or a request is unknown or cannot be scheduled. The same plan
            again changes nothing: that is how a round is executed a second time.
        """
        if "requests" not in plan:
            raise LedgerError(f"the plan of round {round} lacks 'requests': the ids it unlearns, [] for none")
        with self.batch():
            if plans.insert(self.store, branch, round, plan):
                names = plan["requests"]
                if plan.get("step"):
                    names = [name for name in names if self.request(branch, name).state != "unlearning"]
                self.transition_many(branch, [Move(name, "scheduled", round) for name in names])

    def record_failures(
        self, branch: str, round: int, failed: Mapping[int, str], *, amend: bool = False
    ) -> None:
        """Record which clients of a planned round did not deliver, and why; an empty mapping counts too.

        Parameters
        ----------
        amend
            Put them in the place of what was recorded before: for a round that is executed again, and of whose
            earlier execution nothing is left.

        Raises
        ------
        LedgerError
            The round has no plan, or other failures were recorded for it: they are final, for a replay must
            leave out the same clients. The same ones again change nothing.
        """
        with self.batch():
            plans.answer(self.store, branch, round, failed, amend=amend)

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
                journal.move(self.store, branch, move, self.clock())

    def reconcile(
        self,
        branch: str,
        states: Mapping[str, tuple[str, int]],
        *,
        reasons: Mapping[str, str] = MappingProxyType({}),
    ) -> list[AuditEntry]:
        """Bring the ledger to what a checkpoint says, by legal steps only, in one transaction.

        Parameters
        ----------
        states
            Request id → (state, round in which it entered that state), as the checkpoint holds them.
            Requests that are not named keep their state; so do those of which the ledger knows more than the
            checkpoint (see `fedunlearn.requests.reconcile`).
        reasons
            Request id → why it entered that state, where there is something to say.

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
            before = self.head(branch)
            for request_id, (state, round) in states.items():
                record, why = self.request(branch, request_id), reasons.get(request_id, RECONCILED)
                self.transition_many(branch, moves_to(record, state, round, why))
            return trail.entries(self.store.rows, branch, after=0 if before is None else before.entry)

    def add_signed_head(self, branch: str, signed: SignedHead) -> None:
        """Keep a signed head; the same again changes nothing, one that is not in the trail is a LedgerError."""
        with self.batch():
            signed_heads.add(self.store, branch, signed)

    def note_measures(self, branch: str, request_id: str, stage: str, document: Mapping[str, Any]) -> None:
        """Keep what was measured at a stage ("before", "unlearned", "ended"), in the place of an earlier document.

        Raises
        ------
        LedgerError
            The request or the stage is unknown, or JSON would change the document.
        """
        with self.batch():
            measures.note(self.store, branch, request_id, stage, document)

    def take_lease(self, branch: str, holder: str, *, seconds: float = 15.0, wait: float = 0.0) -> Lease:
        """Become the branch's server: from now on every write of this object checks that it still is.

        Parameters
        ----------
        holder
            Who this is, such as a Flower run id. One that holds the lease already takes it over from itself at
            once: a server that was restarted need not wait for its former self.
        seconds
            The term: after so long without `Lease.renew` or `fenced` another may take over.
        wait
            Seconds to wait for a lease that another holds.

        Raises
        ------
        LeaseHeldError
            Another's lease has not run out in that time.
        FencedError
            This object lost an earlier lease: what it knows is stale, begin with a new one.
        """
        taken = lease.take(self.store, self.clock, branch, holder, seconds=seconds, wait=wait)
        self._leases[branch] = taken
        self.store.fence = self._check_leases
        return taken

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Do things outside SQLite while nobody can take over: ``with ledger.fenced(): file.replace(…)``.

        A write transaction that begins by checking the lease, if one was taken, and renews it at the end. Others'
        writes wait meanwhile.

        Raises
        ------
        FencedError
            Another has taken over; the block is not entered.
        """
        with self.batch():
            yield
            for held in self._leases.values():
                held.renew()

    def _check_leases(self) -> None:
        for held in self._leases.values():
            held.check()

    def load(self, branch: str, exported: Mapping[str, Any]) -> None:
        """Replace a branch by an exported one (of any name), in one transaction; its trail is chained anew.

        Raises
        ------
        LedgerError
            The export is damaged or of another version, or heads of the branch in place have been signed.
        """
        with self.batch():
            history.replace(self.store, branch, exported)
