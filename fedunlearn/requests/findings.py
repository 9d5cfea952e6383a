"""What a check of a run directory works with: its findings, and what the ledger says of each federation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import AuditEntry, RequestRecord

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


class Book:
    """What the ledger of a run says of one federation, read once for all certificates."""

    def __init__(self, ledger: Ledger, branch: str, clock: Callable[[], float] = time.time) -> None:
        self.branch = branch
        self.problems = ledger.check_trail(branch)
        self.records = {record.id: record for record in ledger.requests(branch)}
        self.signed = ledger.signed_heads(branch)
        self.entries = ledger.audit(branch)
        self.hashes = {entry.entry: entry.hash for entry in self.entries}
        self.of_request: dict[str, list[AuditEntry]] = {}
        for entry in self.entries:
            self.of_request.setdefault(entry.request_id, []).append(entry)
        plans = ledger.plans(branch)
        self.last_planned = plans[-1].round if plans else 0
        self.planned = {id_: plan.round for plan in plans for id_ in plan.plan.get("requests", ())}
        lease = ledger.lease(branch)
        self.served = lease is not None and clock() < lease.renewed_at + lease.seconds

    @property
    def last_saved(self) -> int:
        """The last round of which the ledger shows that its checkpoint was written; 0: that of the first model."""
        shown = (e.round for e in self.entries if e.to_state in _AFTER_A_CHECKPOINT and e.round is not None)
        return max(self.last_planned - 1, *shown, 0)

    def awaits_certificate(self, record: RequestRecord) -> bool:
        """Whether the server has not had the chance yet to certify a request that has ended.

        Before it certifies an end it signs a head that covers it; and some ends do not need a server.
        """
        covered = self.of_request[record.id][-1].entry <= max((s.entry for s in self.signed), default=0)
        return not covered and (self.served or record.state in _WITHOUT_THE_SERVER)


def books(run: Path) -> dict[str, Book]:
    """Read the ledger of a run directory: federation → what it says of it."""
    with Ledger(run / LEDGER, read_only=True) as ledger:
        return {branch: Book(ledger, branch) for branch in ledger.branches()}
