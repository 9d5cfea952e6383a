"""The checkpoints, and what retention has left, against seals and ledger: replaced, missing, or there again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from fedunlearn import config
from fedunlearn.certificates import retention_policy
from fedunlearn.certificates.checked_history import sealed_files
from fedunlearn.certificates.findings import Book, Finding
from fedunlearn.certificates.findings_in_words import ranges
from fedunlearn.certificates.kept import Listing
from fedunlearn.certificates.retention import CHECKPOINTS, checkpoint_round, is_temporary, quarantine_folder
from fedunlearn.certificates.seals import EXPERIMENT, file_digest
from fedunlearn.config import Experiment
from fedunlearn.errors import UserError
from fedunlearn.requests.records import LIVE_BRANCH
from fedunlearn.runs.checkpoints import account_of, readable_copy


def checkpoints(run: Path, book: Book) -> Iterator[Finding]:
    """Compare the checkpoints of a federation with their seals, and say which are missing or should not be there."""
    name = f"checkpoints of {book.branch}"
    folder = run / CHECKPOINTS
    there = _rounds(folder, book.branch)
    sealed = {seal.round: seal for seal in book.seals}
    bad = 0
    for round, path in there.items():
        digest = file_digest(path)
        if sealed and round not in sealed:
            bad += 1
            yield Finding(False, f"checkpoint {path.name}: is not sealed, so no server of this run wrote it")
        elif sealed and digest != sealed[round].document["checkpoint"]:
            bad += 1
            yield Finding(False, f"checkpoint {path.name}: is not the file that was sealed for round {round}")
        crash = round == max(there) or f"{CHECKPOINTS}/{path.name}" in book.put_away
        copied = _copy(path, digest, may_lack=crash)
        bad += copied is not None and copied.holds is False
        if copied is not None:
            yield copied
    yield from _missing(book, name, there.keys())
    if there and not bad:
        as_what = "as they were sealed" if sealed else "as their hashes say"
        yield Finding(True, f"{name}: {len(there)}, {as_what}")


def retained(run: Path, book: Book, certified: Collection[str]) -> Iterator[Finding]:
    """Say what lies in the run directory that a certified request had put away, and what the quarantine lacks."""
    if book.branch != LIVE_BRANCH:
        return
    try:
        experiment = config.load(run / EXPERIMENT)
    except UserError as error:
        yield Finding(False, f"settings: {' '.join(str(error).split())}")
        return
    if experiment.retention is None:
        return
    bad, listing = 0, Listing()
    for record in book.records.values():
        if not record.ended or record.id not in certified:
            continue
        files = retention_policy.files_to_put_away(run, book.branch, experiment, record, listing)
        for path in files:
            if not is_temporary(path.name):  # one of a server at work, or of a crash
                bad += 1
                where = path.relative_to(run)
                yield Finding(False, f"{where}: is back, although request {record.id} had it removed")
    if experiment.retention.earlier == "quarantine":
        yield from _quarantined(run, book, experiment)
    if book.put_away and not bad:
        yield Finding(True, f"retention of {book.branch}: nothing that was removed is back")


def _quarantined(run: Path, book: Book, experiment: Experiment) -> Iterator[Finding]:
    assert experiment.retention is not None
    folder = quarantine_folder(run, experiment.retention.quarantine)
    sealed, earlier = {seal.round: seal for seal in book.seals}, sealed_files(book)
    gone = []
    for name in sorted(book.put_away):
        path = folder / name
        if is_temporary(path.name):
            continue
        if not path.is_file():
            gone.append(name)
            continue
        if name in earlier and file_digest(path) != earlier[name]:
            yield Finding(False, f"quarantine: {name} is not the file that was sealed")
        round = checkpoint_round(path.name, book.branch) if path.suffix == ".safetensors" else None
        if round in sealed and file_digest(path) != sealed[round].document["checkpoint"]:
            yield Finding(False, f"quarantine: {name} is not the file that was sealed for round {round}")
        elif round is not None and (copied := _copy(path, file_digest(path), may_lack=True)) is not None:
            yield copied
    if gone:
        was, are = ("was", "is") if len(gone) == 1 else ("were", "are")
        gone = retention_policy.by_store(gone)
        yield Finding(None, f"quarantine: {', '.join(gone)} {was} moved there and {are} gone")


def _rounds(folder: Path, branch: str) -> dict[int, Path]:
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    rounds = ((checkpoint_round(path.name, branch), path) for path in files)
    return {round: path for round, path in rounds if round is not None}


def _copy(path: Path, digest: str, *, may_lack: bool) -> Finding | None:
    """Hold the readable copy against its checkpoint, of which a crash may have left none."""
    beside = path.with_suffix(".json")
    name = f"checkpoint {path.name}"
    if not beside.is_file():
        return Finding(None if may_lack else False, f"{name}: there is no readable copy beside it")
    try:
        expected = readable_copy({**account_of(path), "sha256": digest})
    except ValueError as error:
        return Finding(False, f"{name}: cannot be read ({error})")
    if beside.read_bytes() != expected:
        return Finding(False, f"{name}: differs from {beside.name} beside it")
    return None


def _missing(book: Book, name: str, there: Collection[int]) -> Iterator[Finding]:
    newest = max(there, default=None)
    found = "there are none" if newest is None else f"the newest is of round {newest}"
    if book.branch != LIVE_BRANCH:
        if newest is None and book.last_planned:
            words = f"the ledger has planned rounds up to {book.last_planned}"
            yield Finding(None, f"{name}: {found}; {words}")
        return
    if book.last_saved and (newest is None or newest < book.last_saved):
        yield Finding(
            False, f"{name}: {found}; according to the ledger that of round {book.last_saved} was written"
        )
    elif book.last_planned and (newest is None or newest < book.last_planned):
        words = (
            f"round {book.last_planned} was planned: either it is not complete or its checkpoint was removed"
        )
        yield Finding(None, f"{name}: {found}; {words}")
    certified = {
        round: id_
        for id_, record in book.records.items()
        if record.ended and record.unlearned_round is not None
        for round in (record.unlearned_round, record.ended_round)
    }
    unexplained = []
    for seal in book.seals:
        file = f"{CHECKPOINTS}/{book.branch}-r{seal.round:04d}.safetensors"
        if seal.round in there or not seal.document["complete"] or file in book.put_away:
            continue
        if seal.round in certified:
            yield Finding(
                False,
                f"{name}: that of round {seal.round}, named by request {certified[seal.round]}, is gone",
            )
        elif seal.round != book.last_saved:
            unexplained.append(seal.round)
    if unexplained:
        which = "that of round {} is gone, although no request had it removed"
        if len(unexplained) > 1:
            which = "those of rounds {} are gone, although no request had them removed"
        yield Finding(None, f"{name}: {which.format(ranges(unexplained))}")
