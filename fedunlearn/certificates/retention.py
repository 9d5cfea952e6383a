"""What a run directory keeps of clients to be forgotten, and what is put away once their request has ended.

*Earlier* files are the checkpoints from before the round that unlearned the request, the clients' own stored
updates, their results of earlier rounds, and temporary files that a crash left behind. ``[retention] earlier`` says
whether they are purged, moved to a quarantine folder, or kept.

Purging unlinks: the names are gone and the space is given back. It does not promise that a disk's blocks are
overwritten, and it reaches no backup, no snapshot of a volume and no copy that somebody made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from pathlib import Path

from fedunlearn.certificates import earlier_rounds
from fedunlearn.certificates.kept import Holds, Kept, Listing
from fedunlearn.durable import sync_folder, write_durably
from fedunlearn.home import expanded
from fedunlearn.json_text import loads
from fedunlearn.runs.history_files import HISTORY, HistoryFile, is_folder_of_round

CHECKPOINTS = "checkpoints"
STORED = "stored"
CERTIFICATES = "certificates"
QUARANTINE = "quarantine"
METRICS = "metrics.jsonl"

_ACCOUNT = "fedunlearn"  # where checkpoints and stored updates carry what they are, in safetensors' metadata
_LONGEST_HEADER = 2**20
_STORED_UPDATE = re.compile(r"client-0*(\d+)\.\w+")
_OF_A_CLIENT = re.compile(rb'"entity": "client-(\d+)"')
_TEMPORARY = re.compile(r"\..*\.tmp")
_NOTHING_OF_A_CLIENT = frozenset({"experiment.toml", ".lock"})
_RECORDS = {
    "requests.sqlite": "the ledger: client numbers, requests, plans of rounds and the trail",
    "roster.toml": "the roster: client numbers, public keys and hashes of door tokens",
    "partition.json": "which examples of a simulated data set each client was given",
    "branches.json": "which branches were computed",
    "begun.json": "which branches were begun",
    "supervisor.json": "which Flower run the supervisor submitted last; nothing of a client",
}


def checkpoint_round(name: str, branch: str) -> int | None:
    """Return the round of a checkpoint, or of its readable copy; None for any other file name."""
    match = re.fullmatch(re.escape(branch) + r"-r(\d{4,})\.(?:safetensors|json)", name)
    return int(match[1]) if match else None


def earlier_files(
    run: Path,
    branch: str,
    *,
    unlearned_round: int | None,
    clients: Collection[int],
    spared_from: int | None = None,
    listing: Listing | None = None,
) -> list[Path]:
    """Return the files that a request's retention is about, in alphabetical order.

    Parameters
    ----------
    unlearned_round
        The round whose step was applied to the weights. None: nothing was unlearned, every checkpoint holds the
        client's influence as much as the newest one, and they stay.
    spared_from
        Of a request for parts of the clients' data: the round from which on the clients trained without them. Their
        stored updates of that and later rounds hold nothing of these data, and stay; so does what was written then
        of earlier rounds. None: all are meant.
    listing
        What lies in the run directory, if it has been looked at.

    Notes
    -----
    The newest checkpoint is never among them: without it the federation could not go on.
    """
    listing = listing or Listing()
    found = earlier_rounds.results(run, branch, clients, spared_from, listing)
    names = listing.names
    checkpoints = names(run / CHECKPOINTS)
    rounds = {name: checkpoint_round(name, branch) for name in checkpoints}
    newest = max((round for round in rounds.values() if round is not None), default=0)
    for name, round in rounds.items():
        if round is None or unlearned_round is None:
            continue
        if round < min(unlearned_round, newest):
            found.append(run / CHECKPOINTS / name)
    for name in names(run / STORED):
        match = _STORED_UPDATE.fullmatch(name)
        if match and int(match[1]) in clients and not _spared(run / STORED / name, spared_from):
            found.append(run / STORED / name)
    for folder in (run, run / CHECKPOINTS, run / STORED):
        found += [folder / name for name in names(folder) if is_temporary(name)]
    found += [path for path in listing.below(run / HISTORY / branch) if is_temporary(path.name)]
    return sorted(found)


def _spared(path: Path, spared_from: int | None) -> bool:
    """Whether a stored update is of a round from which on a part of its client's data was left out."""
    round = None if spared_from is None else stored_round(path)
    return spared_from is not None and round is not None and round >= spared_from


def stored_round(path: Path) -> int | None:
    """Return the round of a stored update by its own account; None where it gives none."""
    try:
        with path.open("rb") as file:
            header = file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST_HEADER))
        return int(loads(loads(header, path)["__metadata__"][_ACCOUNT], path)["round"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a crash left of a file that was being written."""
    return _TEMPORARY.fullmatch(name) is not None


def purge(files: Iterable[Path]) -> None:
    """Unlink files durably; one that is gone already is no error."""
    folders = set()
    for path in files:
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    _synced(folders)


def _synced(folders: Iterable[Path]) -> None:
    """Make durable what has left some folders, or come into them; of earlier rounds, none stays that is empty."""
    for folder in sorted(folders):
        if is_folder_of_round(folder) and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
        sync_folder(folder)


def quarantine(files: Iterable[Path], run: Path, folder: Path) -> None:
    """Move files of the run directory to the same relative place under ``folder``, durably.

    Temporary files are unlinked instead: they are torn, nobody could use them.
    """
    moved = set()
    for path in files:
        if is_temporary(path.name):
            path.unlink(missing_ok=True)
            continue
        target = folder / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            continue  # moved before a crash
        if path.stat().st_dev == target.parent.stat().st_dev:
            path.replace(target)
        else:
            write_durably(target, path.read_bytes())
            path.unlink()
        moved |= {path.parent, target.parent}
    _synced(moved)


def quarantine_folder(run: Path, named: str | None) -> Path:
    """Return the folder of ``[retention] quarantine``; a relative one lies in the run directory."""
    return run / expanded(named or QUARANTINE)


def inventory(
    run: Path,
    branch: str,
    *,
    clients: Collection[int],
    unlearned_round: int | None,
    quarantined: Path | None = None,
    numbers: Mapping[int, int] | None = None,
    spared_from: int | None = None,
    listing: Listing | None = None,
) -> list[Kept]:
    """Return everything in the run directory that holds, or may hold, something of these clients.

    Parameters
    ----------
    quarantined
        The quarantine folder; None: ``quarantine/`` in the run directory.
    numbers
        What :func:`numbers_of_clients` returned, if it has been asked.
    spared_from, listing
        See :func:`earlier_files`.

    Notes
    -----
    Every file is looked at by its name and place; only ``metrics.jsonl`` is opened, and where a part of a client's
    data is concerned the client's stored update, for its round. A file of no known kind is
    listed as ``unknown``. Left out are ``experiment.toml`` and the lock, which hold nothing of a client.
    """
    listing = listing or Listing()
    kept = _weights(run, listing, branch, unlearned_round)
    kept += _stored(run, listing, clients, unlearned_round, spared_from)
    kept += earlier_rounds.inventory(run, branch, clients, unlearned_round, spared_from, listing)
    for name in listing.names(run):
        if name in _NOTHING_OF_A_CLIENT:
            continue
        if name == METRICS:
            counted = numbers_of_clients(run) if numbers is None else numbers
            kept += _numbers(sum(counted.get(client, 0) for client in clients))
        elif name in _RECORDS:
            kept.append(Kept(name, 1, "record", _RECORDS[name]))
        elif re.sub(r"-(wal|shm|journal)$", "", name) not in _RECORDS:  # SQLite's own files beside a database
            kept.append(Kept(name, 1, "unknown", "a file of unknown kind, not examined"))
    if certificates := listing.names(run / CERTIFICATES):
        place = f"{CERTIFICATES}/"
        kept.append(
            Kept(place, len(certificates), "record", "certificates: client numbers, states and times")
        )
    outside = quarantined or run / QUARANTINE
    kept += _in_quarantine(run, listing, outside, branch, clients, unlearned_round)
    for folder in listing.folders(run):
        if folder.name in (CHECKPOINTS, STORED, CERTIFICATES, HISTORY) or folder == outside:
            continue
        if files := len(listing.below(folder)):
            kept.append(Kept(f"{folder.name}/", files, "unknown", "files of unknown kind, not examined"))
    return kept


def _weights(run: Path, listing: Listing, branch: str, unlearned_round: int | None) -> list[Kept]:
    kept: list[Kept] = []
    folder = run / CHECKPOINTS

    def kind(name: str) -> tuple[Holds, str]:
        round = checkpoint_round(name, branch)
        if round is None:
            return "unknown", "not a checkpoint of this federation, not examined"
        if unlearned_round is None:
            return "weights", "the shared model; nothing was unlearned for this request"
        if round < unlearned_round:
            return "earlier-weights", "the shared model from before the unlearning step"
        return "weights", "the shared model from the unlearning step on"

    for (holds, about), names in groupby(listing.names(folder), key=kind):
        several = list(names)
        kept.append(Kept(_place(run, folder, several), len(several), holds, about))
    return kept


def _stored(
    run: Path,
    listing: Listing,
    clients: Collection[int],
    unlearned_round: int | None,
    spared_from: int | None,
) -> list[Kept]:
    own: list[str] = []
    others: list[str] = []
    for name in listing.names(run / STORED):
        match = _STORED_UPDATE.fullmatch(name)
        mine = match and int(match[1]) in clients and not _spared(run / STORED / name, spared_from)
        (own if mine else others).append(name)
    kept = []
    if own:
        about = "last update of a client named in the request"
        kept.append(Kept(_place(run, run / STORED, own), len(own), "update", about))
    if others:
        about = "last updates of other clients"
        if spared_from is not None:
            about += " or without the data concerned"
        if unlearned_round is not None:
            about += f"; any from before round {unlearned_round} was computed from the model of that time"
        kept.append(Kept(_place(run, run / STORED, others), len(others), "weights", about))
    return kept


def numbers_of_clients(run: Path) -> Counter[int]:
    """Return how many numbers measured of each client stand in ``metrics.jsonl``."""
    counted: Counter[int] = Counter()
    if (run / METRICS).is_file():
        with (run / METRICS).open("rb") as file:
            counted.update(int(match[1]) for line in file if (match := _OF_A_CLIENT.search(line)))
    return counted


def _numbers(lines: int) -> list[Kept]:
    if not lines:
        return []
    about = (
        f"{lines} numbers measured on these clients, such as training loss per round; no weights, no examples"
    )
    return [Kept(METRICS, 1, "numbers", about)]


def _in_quarantine(
    run: Path,
    listing: Listing,
    folder: Path,
    branch: str,
    clients: Collection[int],
    unlearned_round: int | None,
) -> list[Kept]:
    updates, results, weights, others = [], [], [], []
    for path in listing.below(folder):
        match, result = _STORED_UPDATE.fullmatch(path.name), HistoryFile.of(path)
        round = checkpoint_round(path.name, branch)
        if result is not None and result.client in clients:
            results.append(path)
        elif match and int(match[1]) in clients:
            updates.append(path)
        elif round is not None and (unlearned_round is None or round < unlearned_round):
            weights.append(path)
        else:
            others.append(path)
    kinds: list[tuple[list[Path], Holds, str]] = [
        (updates, "update", "last update of a client named in the request, in quarantine"),
        (results, "update", "results of earlier rounds of a client named in the request, in quarantine"),
        (weights, "earlier-weights", "the shared model from before the unlearning step, in quarantine"),
        (others, "unknown", "quarantined for other requests, not examined"),
    ]
    where = _shown(run, folder)
    return [Kept(f"{where}/", len(paths), holds, about) for paths, holds, about in kinds if paths]


def _place(run: Path, folder: Path, names: list[str]) -> str:
    first, last = (_shown(run, folder / names[0]), names[-1])
    return first if len(names) == 1 else f"{first} … {last}"


def _shown(run: Path, path: Path) -> str:
    return str(path.relative_to(run)) if path.is_relative_to(run) else str(path)
