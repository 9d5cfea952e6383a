"""What `verify` does not find, as a list: of the ledger by table and column, of the run directory by file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedunlearn.certificates import checked_history
from fedunlearn.certificates.checked_certificate import Surroundings
from fedunlearn.certificates.checked_history import sealed_files
from fedunlearn.certificates.findings import LEDGER, Book, Finding
from fedunlearn.certificates.findings_in_words import counted, ranges
from fedunlearn.certificates.keys import PublicKey
from fedunlearn.certificates.retention import CERTIFICATES, CHECKPOINTS, checkpoint_round, quarantine_folder
from fedunlearn.certificates.retention_policy import by_store
from fedunlearn.certificates.seals import EXPERIMENT
from fedunlearn.requests.chain import Head
from fedunlearn.requests.records import LIVE_BRANCH

ALWAYS = (
    "requests.sqlite: leases, servers (who served the federation when)",
    "requests.sqlite: audit.seq beyond the order of the entries",
    "requests.sqlite: audit.detail (remarks), except the last one of a certified request",
    "requests.sqlite: keys.key_hash, keys.rows (under which idempotency key a request was made)",
    "requests.sqlite: heads.rows: signed heads removed where a later one exists",
    "requests.sqlite: measures.document: nodes notified since a certificate was issued",
    "requests.sqlite: plans.rows: a removed plan of a round that is not yet sealed",
    "whether what the server recorded was true when it did",
)
WITHOUT_A_KEY: tuple[str, ...] = (
    "without --public-key, requests.sqlite: heads.at, heads.key_id, heads.signature, seals.key_id, seals.signature, "
    "seals.document (at; history, of files that are gone) (who signed); anyone who can write to the run directory "
    "could have forged all of it",
    "without --public-key, certificates: run.name, issued_at, weights.before.reason, weights.after.reason, "
    "weights.end.reason, measures.unlearned.told, data.quarantine, data.superlink, data.remaining, trail.round, "
    "trail.problems "
    "(what is not in the ledger, if somebody signed a certificate again with another key)",
)
WITHOUT_A_HEAD = (
    "without --head: the whole run directory replaced by an older state, or the end of the trail cut off together "
    "with everything that belongs to it"
)


def listed(
    run: Path, surroundings: Surroundings, public_keys: Sequence[PublicKey], heads: Sequence[Head]
) -> Iterator[Finding]:
    """Yield a line for each thing that no check of the run directory looks at."""
    lines = list(ALWAYS)
    lines += _of_books(list(surroundings.books.values()))
    for book in surroundings.books.values():
        lines += checked_history.not_told(run, book)
    lines += [] if public_keys else WITHOUT_A_KEY
    lines += [] if heads else [WITHOUT_A_HEAD]
    if others := _other_files(run, surroundings):
        lines.append(f"files: {', '.join(others)}")
    for line in lines:
        yield Finding(None, f"not covered: {line}")


def _of_books(books: Sequence[Book]) -> Iterator[str]:
    """Yield a line of all requests that have not ended, and one of all rounds that are not sealed."""
    uncertified = {book.branch: [id_ for id_, r in book.records.items() if not r.ended] for book in books}
    requests = {branch: ", ".join(ids) for branch, ids in uncertified.items() if ids}
    if requests:
        which = _of_branches(requests)
        yield f"requests.sqlite: measures.document, measures.rows of requests that have not ended, {which}"
    rounds: dict[str, str] = {}
    for book in books:
        sealed = {seal.round for seal in book.seals if seal.document.get("complete") is True}
        if open_ := [plan.round for plan in book.plans if plan.round not in sealed]:
            rounds[book.branch] = ranges(open_)
    if rounds:
        which = _of_branches(rounds)
        yield f"requests.sqlite: plans.plan, plans.failed of rounds that are not sealed, {which}"


def _of_branches(which: Mapping[str, str]) -> str:
    """Return what it is of each branch; branches of which it is the same together, and a few of many named."""
    same: dict[str, list[str]] = {}
    for branch, what in which.items():
        same.setdefault(what, []).append(branch)
    return "; ".join(f"{what} of {counted(branches)}" for what, branches in same.items())


def _other_files(run: Path, surroundings: Surroundings) -> list[str]:
    """Return the files that no check has looked at; of several in a folder that is looked at, each."""
    looked_at = {run / EXPERIMENT, *(run / f"{LEDGER}{ending}" for ending in ("", "-wal", "-shm"))}
    looked_at |= set((run / CERTIFICATES).glob("*.json"))
    looked_at |= {p for p in (run / CERTIFICATES).glob("*.html") if p.with_suffix(".json").is_file()}
    if not any(book.seals for book in surroundings.books.values()):
        looked_at.discard(run / EXPERIMENT)
    for book in surroundings.books.values():
        looked_at |= set(checked_history.files_there(run, book.branch)) if book.seals else set()
    for path in (run / CHECKPOINTS).glob("*") if (run / CHECKPOINTS).is_dir() else ():
        if any(checkpoint_round(path.name, branch) is not None for branch in surroundings.books):
            looked_at.add(path)
    experiment, live = surroundings.experiment, surroundings.books.get(LIVE_BRANCH)
    if experiment is not None and experiment.retention is not None and live is not None:
        folder, sealed = quarantine_folder(run, experiment.retention.quarantine), sealed_files(live)
        for name in live.put_away:
            if checkpoint_round(Path(name).name, LIVE_BRANCH) is not None or name in sealed:
                looked_at |= {folder / name, (folder / name).with_suffix(".json")}
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path not in looked_at)
    return by_store(str(path.relative_to(run)) for path in files)
