"""What is kept of earlier rounds for the method: whose it is, and what a certificate says of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from fedunlearn.certificates.kept import Holds, Kept, Listing
from fedunlearn.runs.history_files import HISTORY, HistoryFile

_File = tuple[Path, HistoryFile]


def results(
    run: Path, branch: str, clients: Collection[int], spared_from: int | None, listing: Listing
) -> list[Path]:
    """Return the files with results of some clients; see :func:`~fedunlearn.certificates.retention.earlier_files`."""
    return [
        path
        for store in listing.folders(run / HISTORY / branch)
        for client in clients
        for path, file in listing.store(store).get(client, ())
        if not _spared(file, spared_from)
    ]


def inventory(
    run: Path,
    branch: str,
    clients: Collection[int],
    unlearned_round: int | None,
    spared_from: int | None,
    listing: Listing,
) -> list[Kept]:
    """Return what is kept of earlier rounds, by folder; see :func:`~fedunlearn.certificates.retention.inventory`.

    Notes
    -----
    A method may have written results of an earlier round anew in rounds of its unlearning; where that was before its
    last round they are listed as from before the step.
    """
    kept, known = [], set[Path]()
    for folder in listing.folders(run / HISTORY / branch):
        place = f"{folder.relative_to(run)}/"
        files = listing.store(folder)
        known |= {path for several in files.values() for path, _ in several}
        own, others = list[_File](), list[_File]()
        for client, several in files.items():
            if client is None:
                continue
            for path, file in several:
                mine = client in clients and not _spared(file, spared_from)
                (own if mine else others).append((path, file))
        if own:
            about = "results of earlier rounds of a client named in the request"
            kept.append(Kept(place, len(own), "update", about))
        whose = "other clients" if spared_from is None else "other clients or without the data concerned"
        if "weights" in folder.name.split("-"):
            kept += _models(place, others, unlearned_round, f"weights of earlier rounds, of {whose}")
        elif others:
            about = f"updates of earlier rounds, of {whose}, by which the method forgets"
            if unlearned_round is not None:
                about += f"; any from before round {unlearned_round} was computed from the model of that time"
            kept.append(Kept(place, len(others), "weights", about))
        what = "weights that earlier rounds started from"
        kept += _models(place, files.get(None, ()), unlearned_round, what)
    if rest := [path for path in listing.below(run / HISTORY) if path not in known]:
        kept.append(Kept(f"{HISTORY}/", len(rest), "unknown", "files of unknown kind, not examined"))
    return kept


def _spared(file: HistoryFile, spared_from: int | None) -> bool:
    """Whether a result was written once a part of its client's data was left out."""
    return spared_from is not None and file.written >= spared_from


def _models(place: str, files: Iterable[_File], unlearned_round: int | None, what: str) -> list[Kept]:
    """Return models by whether they are from before the step or from it on."""
    before, after = 0, 0
    for _, file in files:
        # What a round started from is from before its step, what somebody came to in it is not.
        last = file.round if file.client is None else file.written + 1
        if unlearned_round is not None and last <= unlearned_round:
            before += 1
        else:
            after += 1
    since = ", from the unlearning step on"
    if unlearned_round is None:
        since = "; nothing was unlearned from them for this request"
    kinds: list[tuple[int, Holds, str]] = [
        (before, "earlier-weights", f"{what}, from before the unlearning step; the method forgets by them"),
        (after, "weights", f"{what}{since}"),
    ]
    return [Kept(place, number, holds, about) for number, holds, about in kinds if number]
