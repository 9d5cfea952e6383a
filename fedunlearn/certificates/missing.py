"""What a run directory should hold by what its ledger says, and does not: what was removed cannot be checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from fedunlearn.certificates.findings import Book, Finding
from fedunlearn.certificates.retention import CERTIFICATES


def missing_entries(book: Book) -> Iterator[Finding]:
    """Say of which requests only the plans of rounds know, and whether there is a trail at all."""
    for id_, round in book.planned.items():
        if id_ not in book.records:
            text = f"request {id_}: is in the plan of round {round}, but not among the requests"
            yield Finding(False, f"trail of {book.branch}: {text}")
    if not book.entries:
        yield Finding(
            None, f"trail of {book.branch}: has no entries; no request was ever made, or all were removed"
        )


def missing_certificates(
    run: Path, book: Book, certified: Collection[str], *, keyed: bool
) -> Iterator[Finding]:
    """Say which requests have ended and have no certificate.

    Parameters
    ----------
    keyed
        Whether a public key is known, and with it that the server had a key: it should have certified them.
    """
    without = [record for record in book.records.values() if record.ended and record.id not in certified]
    if without and not book.signed and not (run / CERTIFICATES).is_dir():
        ended = f"{len(without)} request{'s have' if len(without) > 1 else ' has'} ended"
        yield Finding(None, f"certificates of {book.branch}: there are none, and {ended}")
        return
    for record in without:
        if record.id in book.of_request and book.awaits_certificate(record):
            yield Finding(None, f"request {record.id}: has ended, with no certificate yet")
        else:
            holds = False if keyed else None
            yield Finding(holds, f"request {record.id}: has ended ({record.state}) without a certificate")
