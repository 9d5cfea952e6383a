"""What is forgotten: whole clients, listed, in turn or drawn; or a share, single samples, classes of their data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from fedunlearn import json_text
from fedunlearn.config.conditions import (
    Count,
    Number,
    PathText,
    above,
    at_least,
    at_most,
    distinct,
    not_empty,
)
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.home import expanded
from fedunlearn.parts import Part

Numbers = Annotated[tuple[Number, ...], not_empty, distinct]
Samples = Annotated[float, above(0), at_most(1)] | Numbers | PathText
"""A share of a client's rows; single rows, counted from 0 in the order of its data; or a JSON file of such rows."""

Clients = Annotated[tuple[Number, ...], not_empty, distinct]


MOST_DRAWN = 1000
"""So many sets of clients may be drawn; each is a branch for every method."""

MOST_PARTS = 100_000
"""So many parts of clients' data may be forgotten by themselves."""


@dataclass(frozen=True, kw_only=True)
class DrawnTargets:
    """``targets = {draw = 3, size = 1}``: three sets of one client, drawn by the experiment's seed."""

    draw: Annotated[int, at_least(1), at_most(MOST_DRAWN)]
    size: Count = 1


MOST_IN_TURN = 1000
"""So many clients may be forgotten one by one without being listed."""

Targets = Annotated[tuple[Clients, ...], not_empty] | Literal["each"] | DrawnTargets


def target_sets(targets: Targets, num_clients: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Return the sets of clients, ascending within a set, in the order listed or drawn.

    Drawn sets share no client where there are enough of them (draw · size ≤ num_clients). Otherwise each set
    is drawn from all clients, again until it differs from those before it, so that no branch is run twice;
    there must be ``draw`` different sets.
    """
    if targets == "each":
        return tuple((client,) for client in range(num_clients))
    if not isinstance(targets, DrawnTargets):
        return tuple(tuple(sorted(clients)) for clients in targets)
    from fedunlearn.randomness import numpy_generator

    rng = numpy_generator(seed, "targets")
    if targets.draw * targets.size <= num_clients:
        order = rng.permutation(num_clients)[: targets.draw * targets.size]
        return tuple(tuple(sorted(row)) for row in order.reshape(targets.draw, targets.size).tolist())
    sets: dict[tuple[int, ...], None] = {}
    while len(sets) < targets.draw:
        sets[tuple(sorted(rng.choice(num_clients, targets.size, replace=False).tolist()))] = None
    return tuple(sets)


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """``[[target]]``: what one branch forgets, where that is not simply a set of clients."""

    clients: Clients | None = None  # default, with classes: everyone
    samples: Samples | None = None  # default: all of them
    classes: Numbers | None = None  # default: all of them


class Wanted(Protocol):
    """What a ``[[target]]`` and a ``[[forget]]`` entry have in common."""

    @property
    def clients(self) -> tuple[int, ...] | None: ...
    @property
    def samples(self) -> float | tuple[int, ...] | str | None: ...
    @property
    def classes(self) -> tuple[int, ...] | None: ...


def parts_of(
    entries: Iterable[Wanted], num_clients: int
) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
    """Number the parts of clients' data that entries name.

    Returns
    -------
    parts : tuple of Part
        Numbered from ``num_clients`` on, in the order of the entries, in an entry by client.
    numbers : tuple of tuple of int
        Of each entry the clients (where it is about whole ones) or parts to forget, ascending.

    Raises
    ------
    ConfigError
        A file of samples cannot be used.
    """
    parts: list[Part] = []
    numbers = []
    for entry in entries:
        clients = sorted(entry.clients) if entry.clients is not None else list(range(num_clients))
        if entry.samples is None and entry.classes is None:
            numbers.append(tuple(clients))
            continue
        listed = read_samples(entry.samples, clients) if isinstance(entry.samples, str) else None
        first = num_clients + len(parts)
        for client in clients:
            samples = entry.samples if listed is None else listed[client]
            assert not isinstance(samples, str)
            samples = tuple(sorted(samples)) if isinstance(samples, tuple) else samples
            classes = None if entry.classes is None else tuple(sorted(entry.classes))
            parts.append(Part(num_clients + len(parts), client, samples, classes))
        numbers.append(tuple(range(first, num_clients + len(parts))))
    return tuple(parts), tuple(numbers)


def read_samples(file: str, clients: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Read which rows of each client's data a file names: ``{"3": [0, 5, 9]}``, or of a single client ``[0, 5, 9]``.

    Raises
    ------
    ConfigError
        With one line that names the file and what is wrong.
    """
    try:
        content = json_text.loads(expanded(file).read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"samples = {file!r}: cannot be read ({error.strerror})") from None
    except UserError as error:
        raise ConfigError(f"samples = {file!r}: {str(error).removeprefix(f'{file}: ')}") from None
    clients = list(clients)
    by_client = {str(clients[0]): content} if isinstance(content, list) and len(clients) == 1 else content
    if not isinstance(by_client, dict):
        raise ConfigError(
            f'samples = {file!r}: must be {{"client": [row, …], …}} with {len(clients)} clients'
        )
    found = {}
    for client in clients:
        rows: list[int] = by_client.get(str(client), [])
        if not isinstance(rows, list) or not rows or not _are_rows(rows):
            raise ConfigError(
                f"samples = {file!r}: client {client} must have a list of distinct rows, counted from 0"
            )
        found[client] = tuple(rows)
    return found


def _are_rows(rows: list[int]) -> bool:
    return all(type(row) is int and row >= 0 for row in rows) and len(set(rows)) == len(rows)
