"""What a run directory should hold by what its ledger says, and does not: what was removed cannot be checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from fedunlearn.requests.findings import Book, Finding
from fedunlearn.requests.records import LIVE_BRANCH
from fedunlearn.requests.retention import CERTIFICATES, CHECKPOINTS, checkpoint_round


def missing_entries(book: Book) -> Iterator[Finding]:
    """Say of which requests only the plans of rounds know, and whether there is a trail at all."""
    for id_, round in book.planned.items():
        if id_ not in book.records:
            text = f"request {id_}: is in the plan of round {round}, but not among the requests"
            yield Finding(False, f"trail of {book.branch}: {text}")
    if not book.entries:
        yield Finding(
            None, f"trail of {book.branch}: has no entry; no request was ever made, or all were removed"
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
            yield Finding(None, f"request {record.id}: has ended and has no certificate yet")
        else:
            holds = False if keyed else None
            yield Finding(holds, f"request {record.id}: has ended ({record.state}) and has no certificate")


def missing_checkpoints(run: Path, book: Book) -> Iterator[Finding]:
    """Say whether the newest checkpoint is missing, which is never put away."""
    if book.last_planned == 0:
        return
    folder = run / CHECKPOINTS
    names = [path.name for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    rounds = (checkpoint_round(name, book.branch) for name in names)
    newest = max((round for round in rounds if round is not None), default=None)
    found = "there are none" if newest is None else f"the newest is of round {newest}"
    name = f"checkpoints of {book.branch}"
    if book.branch != LIVE_BRANCH:
        if newest is None:
            yield Finding(None, f"{name}: {found}; the ledger has planned rounds up to {book.last_planned}")
    elif newest is None or newest < book.last_saved:
        yield Finding(False, f"{name}: {found}; by the ledger that of round {book.last_saved} was written")
    elif newest < book.last_planned:
        words = f"round {book.last_planned} was planned: it is not complete, or its checkpoint was removed"
        yield Finding(None, f"{name}: {found}; {words}")
