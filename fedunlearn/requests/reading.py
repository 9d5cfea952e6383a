"""What is read of a ledger: requests, plans, the trail and who serves. Nobody who reads waits for who writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Parts
from fedunlearn.requests import (
    chain,
    history,
    journal,
    lease,
    listing,
    measures,
    parts_table,
    plans,
    signed_heads,
    trail,
)
from fedunlearn.requests.chain import Head, SignedHead
from fedunlearn.requests.lease import LeaseRecord, ServerRecord
from fedunlearn.requests.records import AuditEntry, PlanRecord, RequestRecord
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import INITIAL, OPEN, STATES, LedgerError


class LedgerReader:
    """The reading half of a :class:`~fedunlearn.requests.ledger.Ledger`.

    Attributes
    ----------
    store : Store
        The file.
    clock : callable
        Returns Unix seconds.
    """

    store: Store
    clock: Callable[[], float]

    def requests(
        self, branch: str, states: Iterable[str] | None = None, *, client: int | None = None
    ) -> list[RequestRecord]:
        """Return the branch's requests, optionally only those in `states`, or those about `client` and its data.

        Ordered by (at_round, id); requests without a round come last, in order of arrival.
        """
        wanted = None if states is None else tuple(states)
        if unknown := set(wanted or ()) - set(STATES):
            raise LedgerError(f"unknown state {min(unknown)!r}: must be one of {', '.join(STATES)}")
        if client is None:
            return history.records(self.store, branch, states=wanted)
        where = f"AND id IN (SELECT id FROM named WHERE branch = ? AND client IN ({listing.OWN_NUMBERS}))"
        return history.records(self.store, branch, where, branch, client, branch, client, states=wanted)

    def page(
        self,
        branch: str,
        states: Iterable[str] | None = None,
        *,
        client: int | None = None,
        after: int = 0,
        limit: int,
    ) -> list[RequestRecord]:
        """Return up to `limit` requests by arrival, from the one after `after`; of a client those for it alone."""
        wanted = None if states is None else tuple(states)
        return listing.page(self.store, branch, states=wanted, client=client, after=after, limit=limit)

    def oldest_open(self, branch: str) -> float | None:
        """Return when the oldest request that has not ended arrived, in Unix seconds; None: all have ended."""
        return listing.oldest_arrival(self.store, branch, tuple(OPEN))

    def parts(self, branch: str, known: Parts = NO_PARTS) -> Parts:
        """Return all parts of clients' data that live requests have named; `known` if there are no more than that."""
        if parts_table.count(self.store, branch) == len(known):
            return known
        return parts_table.read(self.store, branch)

    def named(self, branch: str, state: str) -> frozenset[int]:
        """Return the numbers that requests in a state name."""
        return listing.named(self.store, branch, state)

    def counts(self, branch: str) -> dict[str, int]:
        """Return how many of the branch's requests are in each state; states with none are left out."""
        sql = "SELECT state, count(*) AS number FROM requests WHERE branch = ? GROUP BY state"
        return {row["state"]: row["number"] for row in self.store.rows(sql, branch)}

    def request(self, branch: str, request_id: str) -> RequestRecord:
        """Return one request; an unknown one raises UnknownRequestError, which is a LedgerError."""
        return journal.get(self.store, branch, request_id)

    def due(self, branch: str, round: int) -> list[RequestRecord]:
        """Return the requests that the plan of `round` may take up: open, and arrived before it.

        Those that are the `same_as` another are among them. Where others may withdraw meanwhile, ask and
        `commit_plan` inside one `batch`.
        """
        arrived = "AND (at_round IS NULL OR at_round < ?)"
        return history.records(self.store, branch, arrived, round, states=(INITIAL, "waiting"))

    def branches(self) -> list[str]:
        """Return the names of all branches that hold a request or a plan, in alphabetical order."""
        rows = self.store.rows("SELECT branch FROM requests UNION SELECT branch FROM plans ORDER BY branch")
        return [str(row["branch"]) for row in rows]

    def plan(self, branch: str, round: int) -> PlanRecord | None:
        """Return the committed plan of a round, or None."""
        found = plans.read(self.store, branch, round)
        return found[0] if found else None

    def plans(self, branch: str) -> list[PlanRecord]:
        """Return all committed plans of a branch, by round."""
        return plans.read(self.store, branch)

    def last_round(self, branch: str) -> int:
        """Return the highest round that has a plan, or 0."""
        return plans.last_round(self.store, branch)

    def audit(self, branch: str | None = None) -> list[AuditEntry]:
        """Return the audit trail, of one branch or of all, in the order in which it was written."""
        return trail.entries(self.store.rows, branch)

    def life(self, branch: str, request_id: str) -> list[AuditEntry]:
        """Return one request's entries of the trail, in order."""
        return trail.of_request(self.store.rows, branch, request_id)

    def head(self, branch: str) -> Head | None:
        """Return the last entry of a branch's trail, or None while it has none."""
        return trail.head(self.store.rows, branch)

    def check_trail(self, branch: str, *, head: Head | None = None) -> list[str]:
        """Return what is wrong with a branch's trail, one line each; nothing if it is intact.

        Finds entries that were edited, removed, inserted or cut off, and requests that do not stand as the trail
        says. Whoever can write the file can write another trail that is consistent in itself: only a head kept
        elsewhere tells that one from this.

        Parameters
        ----------
        head
            A head that the trail must contain; so it must all signed heads in the file. Their signatures are not
            looked at here.
        """
        with self.store.snapshot():
            try:
                entries = trail.entries(self.store.rows, branch)
                requests = history.records(self.store, branch)
                kept = [
                    (f"the head signed by key {s.key_id}", s.head)
                    for s in signed_heads.read(self.store, branch)
                ]
                if head is not None:
                    kept.append(("the given head", head))
                return chain.problems(entries, requests, kept)
            except (TypeError, ValueError) as error:
                return [f"a row of branch {branch!r} contains what fedunlearn never writes ({error})"]

    def signed_heads(self, branch: str) -> list[SignedHead]:
        """Return a branch's signed heads by entry."""
        return signed_heads.read(self.store, branch)

    def measures(self, branch: str, request_id: str) -> dict[str, dict[str, Any]]:
        """Return a request's documents by stage, as far as there are any."""
        return measures.read(self.store, branch, request_id)

    def lease(self, branch: str) -> LeaseRecord | None:
        """Return who has a branch's lease or had it last, or None if nobody ever did."""
        return lease.read(self.store, branch)

    def served(self, branch: str) -> bool:
        """Whether a server holds a branch's lease now; without one, requests wait."""
        found = self.lease(branch)
        return found is not None and found.held(self.clock())

    def servers(self, branch: str) -> list[ServerRecord]:
        """Return every taking of the branch's lease, in order."""
        return lease.servers(self.store, branch)

    def export(self, branch: str) -> dict[str, Any]:
        """Return a branch's requests, plans and trail, as JSON types; `load` reads them back."""
        with self.store.snapshot():
            return history.export(self.store, branch)
