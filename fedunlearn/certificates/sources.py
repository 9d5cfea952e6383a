"""What certificates are written from: all that ledger and run directory say of a federation, read once a round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedunlearn.certificates import certificate, retention
from fedunlearn.certificates.kept import Listing
from fedunlearn.certificates.relations import Relations, related
from fedunlearn.requests.chain import Head
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import AuditEntry, PlanRecord, RequestRecord


class Sources:
    """All that ledger and metrics hold of a federation up to a head, read once for all certificates of a round."""

    def __init__(
        self, run: Path, ledger: Ledger, branch: str, round: int, head: Head, problems: Sequence[str]
    ) -> None:
        self.issued = certificate.issued(run)
        self.written: dict[str, dict[str, Any]] = {}  # that have no names yet
        self.listing = Listing()
        self.numbers = retention.numbers_of_clients(run)
        trail = ledger.audit(branch)
        # Whoever checks a certificate sees them as its head has them: not what has come in since.
        self.relations = Relations(ledger.requests(branch), trail)
        self.head = head
        # The plan of the round to come may be committed already, after a crash.
        self.plans: list[PlanRecord] = [plan for plan in ledger.plans(branch) if plan.round <= round]
        self.problems = problems
        self.round = round
        self.entries: dict[str, list[AuditEntry]] = {}
        for entry in trail:
            self.entries.setdefault(entry.request_id, []).append(entry)

    def earlier(self, record: RequestRecord) -> dict[str, dict[str, Any]]:
        """Return the certificates of earlier requests that name one of the same clients."""
        earlier = related(record, self.relations, self.head.entry)["earlier"]
        found = {id_: self.written[id_] for id_ in earlier if id_ in self.written}
        on_disk = {id_: self.issued[id_] for id_ in earlier if id_ in self.issued and id_ not in found}
        return found | {id_: certificate.read(path) for id_, path in on_disk.items()}
