"""What is kept of earlier rounds, against the seals of the rounds that wrote it: other files, or nobody's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fedunlearn.certificates.findings import Book, Finding
from fedunlearn.certificates.seals import file_digest
from fedunlearn.plurals import counted
from fedunlearn.runs.history_files import HISTORY, HistoryFile


def sealed_files(book: Book) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file of earlier rounds that was sealed, by path in the run directory."""
    found = {}
    for seal in book.seals:
        history = seal.document.get("history")
        for place, digest in history.items() if isinstance(history, dict) else ():
            found[f"{HISTORY}/{book.branch}/{place}"] = str(digest)
    return found


def history(run: Path, book: Book) -> Iterator[Finding]:
    """Compare what is kept of earlier rounds with the seals of the rounds that wrote it."""
    if not book.seals:
        return
    sealed, bad = sealed_files(book), 0
    there = files_there(run, book.branch)
    for path in there:
        place = str(path.relative_to(run))
        if place not in sealed:
            bad += 1
            yield Finding(False, f"{place}: is not sealed, so no server of this run wrote it")
        elif file_digest(path) != sealed[place]:
            bad += 1
            yield Finding(False, f"{place}: is not the file that was sealed")
    if there and not bad:
        yield Finding(
            True, f"earlier rounds of {book.branch}: {counted(len(there), 'file')}, as they were sealed"
        )


def files_there(run: Path, branch: str) -> list[Path]:
    """Return the files of earlier rounds that a run has of a federation."""
    files = sorted((run / HISTORY / branch).glob("*/*/*"))
    return [path for path in files if HistoryFile.of(path) is not None and path.is_file()]


def not_told(run: Path, book: Book) -> Iterator[str]:
    """Yield for each store what its files do not tell."""
    sealed = sealed_files(book) if book.seals else {}
    stores = Counter("/".join(place.split("/")[:3]) for place in sealed)
    for store in sorted(stores):
        number = len(list((run / store).glob("*/*")))
        yield (
            f"{store}/ ({counted(number, 'file')}): whether one that was sealed is missing, or one is there again in "
            "whose place a later one was written"
        )
