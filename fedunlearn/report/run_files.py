"""The files of a run directory, read once. Only the scorecard is indispensable."""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedunlearn.config.source import parse
from fedunlearn.errors import UserError
from fedunlearn.plurals import counted, joined
from fedunlearn.report.json_file import parsed, read_json
from fedunlearn.report.picture_index import Picture, read_pictures
from fedunlearn.report.scores import Scores
from fedunlearn.report.series import Metrics, read_metrics
from fedunlearn.report.words import PartName
from fedunlearn.text_files import read_text

OVER_ROUNDS = ("metrics.jsonl", "branches.json")
"""What the charts over rounds are drawn from."""
NO_PARTITION = ("augmentation", "directory")
"""Keys of ``[data]`` that change nothing about who holds which row."""


@dataclass(frozen=True)
class Request:
    """One forget request as a branch knew it. ``None`` = has not happened."""

    id: str
    clients: tuple[int, ...]
    at_round: int
    unlearned_round: int | None
    recovered_round: int | None
    state: str


@dataclass(frozen=True)
class Branch:
    """One trajectory of the run: the original, a retrained oracle, its floor, or a method's fork."""

    name: str
    kind: str
    label: str
    seed: int
    target: int | None
    forget: tuple[int, ...]
    requests: tuple[Request, ...]
    first_round: int
    last_round: int


@dataclass(frozen=True)
class Partition:
    """How many training samples of each class clients hold; of very many clients only some are listed.

    Attributes
    ----------
    clients
        The numbers of the listed clients, ascending.
    counts
        ``counts[i][c]``: samples of class c that ``clients[i]`` holds.
    classes
        Names of the classes.
    num_clients
        All there are, listed or not.
    sizes, classes_held
        Samples of a client, and classes of a client: ``least``, ``median``, ``most`` and ``total`` over all
        clients.
    names
        Listed clients' names by number, such as those of sites, and what the parts are that are forgotten by
        themselves; empty where there are none.
    part_sizes
        Samples of each of these parts, by number.
    notes
        What of the data was left out, a line each.
    copies
        What of the data is there more than once, a line each.
    """

    clients: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    num_clients: int
    sizes: Mapping[str, float]
    classes_held: Mapping[str, float]
    names: Mapping[int, str | PartName] = field(default_factory=dict)
    part_sizes: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    def size(self, client: int) -> int | None:
        """Return n_k, or the size of a part; None for a client that is not listed."""
        if client in self.part_sizes:
            return self.part_sizes[client]
        place = bisect_left(self.clients, client)
        found = place < len(self.clients) and self.clients[place] == client
        return sum(self.counts[place]) if found else None


@dataclass(frozen=True)
class RunFiles:
    """Everything the report reads."""

    directory: Path
    scores: Scores
    metrics: Metrics
    branches: tuple[Branch, ...] = ()
    partitions: Mapping[int, Partition] = field(default_factory=dict)
    toml: str = ""
    pictures: tuple[Picture, ...] = ()
    absent: tuple[str, ...] = ()
    """Those of ``OVER_ROUNDS`` that are not there."""

    def names(self, seed: int | None) -> Mapping[int, str | PartName]:
        """Return the names of clients that have one, by number."""
        held = None if seed is None else self.partitions.get(seed)
        return held.names if held else {}

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved experiment as a dictionary; empty when it cannot be read."""
        try:
            return parse(self.toml, "experiment.toml")
        except UserError:
            return {}


def read_run(directory: Path) -> RunFiles:
    """Return the files of one run.

    Raises
    ------
    UserError
        When there is no such directory, or no scorecard in it: the run has not finished.
    RunError
        When a file is not what it should be, with its path.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such run directory")
    card = directory / "scorecard.json"
    if not card.exists():
        raise UserError(
            f"{card}: not found; the run has not finished (`fedunlearn run … --resume` finishes it)"
        )
    toml = directory / "experiment.toml"
    branches = directory / "branches.json"
    partition = directory / "partition.json"
    return RunFiles(
        directory=directory,
        scores=Scores(with_setting(read_json(card), directory)),
        metrics=read_metrics(directory / "metrics.jsonl"),
        branches=parsed(branches, lambda entries: tuple(map(_branch, entries)), ()),
        partitions=parsed(partition, _partitions, {}),
        toml=read_text(toml) if toml.exists() else "",
        pictures=read_pictures(directory),
        absent=tuple(name for name in OVER_ROUNDS if not (directory / name).exists()),
    )


def with_setting(card: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the scorecard with what must be known of the run beside its numbers.

    That is where the data are from (``origin``), whether it was a smoke run (``smoke``), which split stands for
    unseen data (``unseen``), what ran it (``engine``), what training images were changed by (``augmentation``), which
    data are dealt out to how many clients (``setting``) and where it lies (``directory``).
    """
    settings = _toml(directory / "experiment.toml")
    origin = parsed(directory / "partition.json", _origin, "")
    known = {
        "origin": origin,
        "smoke": settings.get("smoke-run", False),
        "unseen": (settings.get("measures") or {}).get("unseen", ""),
        "engine": parsed(directory / "branches.json", lambda records: _engine(settings, records), None)
        or _engine(settings, []),
        "augmentation": (settings.get("data") or {}).get("augmentation", ""),
        "setting": _setting(settings),
        "directory": str(directory),
    }
    return {**card, **{name: value for name, value in known.items() if value}}


def _origin(held: Mapping[str, Any]) -> str:
    return str(next((entry["origin"] for entry in held.values() if entry.get("origin")), ""))


def _toml(path: Path) -> dict[str, Any]:
    """Return a resolved experiment; empty where there is none that can be read."""
    try:
        return parse(read_text(path), str(path))
    except (OSError, UserError):
        return {}


def _setting(settings: Mapping[str, Any]) -> str:
    """Return the data and the number of clients in one line: under one seed, the same client holds the same rows."""
    data = {key: value for key, value in (settings.get("data") or {}).items() if key not in NO_PARTITION}
    clients = (settings.get("federation") or {}).get("num-clients")
    return json.dumps([data, clients], sort_keys=True, default=str) if data else ""


def _engine(settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Return the engine in words: what branches were computed on, or what was asked for where all were cached."""
    used = [record["engine"] for record in records if record.get("engine")]
    words = []
    for engine in used or [settings.get("engine") or {}]:
        workers = engine.get("workers")
        count = counted(workers, "worker") if workers else ""
        words.append(", ".join(filter(None, (engine.get("name"), count))))
    return joined(list(dict.fromkeys(words)))


def _branch(entry: Mapping[str, Any]) -> Branch:
    return Branch(
        name=str(entry["branch"]),
        kind=str(entry["kind"]),
        label=str(entry["label"]),
        seed=int(entry["seed"]),
        target=entry["target"],
        forget=tuple(entry["forget"]),
        requests=tuple(map(_request, entry["requests"])),
        first_round=entry["first_round"],
        last_round=entry["last_round"],
    )


def _request(request: Mapping[str, Any]) -> Request:
    return Request(
        id=str(request["id"]),
        clients=tuple(request["clients"]),
        at_round=request["at_round"],
        unlearned_round=request["unlearned_round"],
        recovered_round=request["ended_round"] if request["outcome"] == "recovered" else None,
        state=str(request["state"]),
    )


def _partitions(document: Mapping[str, Any]) -> dict[int, Partition]:
    return {int(seed): _partition(entry) for seed, entry in document.items()}


def _partition(entry: Mapping[str, Any]) -> Partition:
    clients = tuple(entry["clients"])
    parts: Mapping[str, Any] = entry.get("parts") or {}
    return Partition(
        clients=clients,
        counts=tuple(tuple(int(count) for count in row) for row in entry["counts"]),
        classes=tuple(map(str, entry["classes"])),
        num_clients=int(entry["num_clients"]),
        sizes=entry["sizes"],
        classes_held=entry["classes_held"],
        names={
            **dict(zip(clients, map(str, entry.get("client_names") or ()), strict=False)),
            **{
                int(number): PartName(str(part["what"]), int(part["client"]))
                for number, part in parts.items()
            },
        },
        part_sizes={int(number): int(part["size"]) for number, part in parts.items()},
        notes=tuple(str(note) for note in entry.get("notes") or ()),
        copies=tuple(str(line) for line in entry.get("copies") or ()),
    )
