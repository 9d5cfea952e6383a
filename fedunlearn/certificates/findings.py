"""What a check of a run directory works with: its findings, and what the ledger says of each federation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fedunlearn.certificates import checked_tables, seals
from fedunlearn.certificates.relations import Relations
from fedunlearn.certificates.seals import Seal
from fedunlearn.errors import RunError
from fedunlearn.requests.chain import Head, SignedHead
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import AuditEntry, PlanRecord, RequestRecord

LEDGER = "requests.sqlite"
_AFTER_A_CHECKPOINT = ("recovering", "forgotten", "forgotten-unrecovered", "superseded")
_WITHOUT_THE_SERVER = ("duplicate", "withdrawn")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    holds : bool or None
        True: it is as it should be; False: it is not; None: it could not be checked.
    text : str
        One line: what, and what was found.
    """

    holds: bool | None
    text: str


@dataclass
class Book:
    """What the ledger of a run says of one federation, read once for all checks.

    Attributes
    ----------
    branch : str
    problems : list of str
        What is wrong with the trail, or with the tables beside it.
    records, entries, signed, plans, seals
        As the ledger has them; empty where a row cannot be read.
    measures : dict
        Request → stage → document.
    plan_digests : dict
        Round → SHA-256 of its plan and failures.
    served : bool
        Whether a server has the federation now.
    """

    branch: str
    problems: list[str] = field(default_factory=list)
    records: dict[str, RequestRecord] = field(default_factory=dict)
    entries: list[AuditEntry] = field(default_factory=list)
    signed: list[SignedHead] = field(default_factory=list)
    plans: list[PlanRecord] = field(default_factory=list)
    seals: list[Seal] = field(default_factory=list)
    measures: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    plan_digests: dict[int, str | None] = field(default_factory=dict)
    served: bool = False

    @classmethod
    def read(cls, ledger: Ledger, branch: str, clock: Callable[[], float] = time.time) -> Book:
        """Read what the ledger says of a federation; a row that cannot be read is a problem, and no error."""
        book = cls(branch)
        try:
            if ill_typed := checked_tables.ill_typed(ledger, branch):
                book.problems = ill_typed
                return book
            book.problems = ledger.check_trail(branch)
            book._fill(ledger, clock)
        except (RunError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            book.problems.append(f"a row contains what fedunlearn never writes ({error})")
        book.problems += checked_tables.table_problems(ledger, branch)
        return book

    def _fill(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.entries = ledger.audit(self.branch)
        self.records = {record.id: record for record in ledger.requests(self.branch)}
        self.signed = ledger.signed_heads(self.branch)
        self.plans = ledger.plans(self.branch)
        self.plan_digests = {
            plan.round: seals.plan_digest(ledger.store, self.branch, plan.round) for plan in self.plans
        }
        self.measures = {id_: ledger.measures(self.branch, id_) for id_ in self.records}
        self.seals = seals.read(ledger.store, self.branch)
        lease = ledger.lease(self.branch)
        self.served = lease is not None and clock() < lease.renewed_at + lease.seconds

    @cached_property
    def hashes(self) -> dict[int, str]:
        """The hash of each entry, by its number."""
        return {entry.entry: entry.hash for entry in self.entries}

    @cached_property
    def of_request(self) -> dict[str, list[AuditEntry]]:
        """The entries of each request."""
        found: dict[str, list[AuditEntry]] = {}
        for entry in self.entries:
            found.setdefault(entry.request_id, []).append(entry)
        return found

    @cached_property
    def relations(self) -> Relations:
        """The requests by what they name and by the round that unlearned them."""
        return Relations(self.records.values(), self.entries)

    @property
    def last_planned(self) -> int:
        """The last round that has a plan; 0: none has."""
        return self.plans[-1].round if self.plans else 0

    @cached_property
    def planned(self) -> dict[str, int]:
        """Request → the last round whose plan names it."""
        return {id_: plan.round for plan in self.plans for id_ in plan.plan.get("requests", ())}

    @property
    def last_saved(self) -> int:
        """The last round of which the ledger shows that its checkpoint was written; 0: that of the first model."""
        shown = (e.round for e in self.entries if e.to_state in _AFTER_A_CHECKPOINT and e.round is not None)
        complete = (seal.round for seal in self.seals if seal.document.get("complete") is True)
        return max(self.last_planned - 1, *shown, *complete, 0)

    @cached_property
    def put_away(self) -> set[str]:
        """The files that were removed or moved for requests that have ended, by path in the run directory."""
        stages = (stages.get("retention", {}) for stages in self.measures.values())
        return {str(name) for stage in stages for name in stage.get("put_away", ())}

    def has(self, head: Head) -> bool:
        """Whether the trail contains a head."""
        return self.hashes.get(head.entry) == head.hash

    def awaits_certificate(self, record: RequestRecord) -> bool:
        """Whether the server has not had the chance yet to certify a request that has ended.

        Before it certifies an end it signs a head that covers it; and some ends do not need a server.
        """
        covered = self.of_request[record.id][-1].entry <= max((s.entry for s in self.signed), default=0)
        return not covered and (self.served or record.state in _WITHOUT_THE_SERVER)


def books(run: Path) -> dict[str, Book]:
    """Read the ledger of a run directory: federation → what it says of it."""
    with Ledger(run / LEDGER, read_only=True) as ledger, ledger.store.snapshot():
        return {branch: Book.read(ledger, branch) for branch in ledger.branches()}
