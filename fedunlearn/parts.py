"""Parts of clients' data that can be forgotten by themselves: a share, single samples, classes.

A part is numbered like a client, from ``num_clients`` on, so that a request names clients and parts alike. Which rows
a part has is worked out where the data are, from its description and the experiment's seed; nobody else needs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.errors import ConfigError
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.randomness import numpy_generator

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A part of one client's data.

    Attributes
    ----------
    number : int
        Which no client and no other part has.
    client : int
        Whose data it is a part of.
    samples : float, tuple of int or None
        Share of the client's rows (above 0, at most 1), drawn by the seed; or single rows, counted from 0 in the
        order of the client's own data; None: all.
    classes : tuple of int or None
        Only rows of these classes (a share is one of them); None: of every class.
    """

    number: int
    client: int
    samples: float | tuple[int, ...] | None = None
    classes: tuple[int, ...] | None = None

    def rows(self, labels: npt.NDArray[np.integer[Any]], seed: int) -> Rows:
        """Return which of the client's rows belong to it, ascending, int64.

        Rows and classes that the client does not have are simply not there: a live request may name some, for nobody
        but the client can tell, and that must not keep it from training. Where the data are, `check` finds them.

        Parameters
        ----------
        labels : ndarray of int, shape (n,)
            Of the client's own rows.
        seed
            The experiment's; a share is drawn at the address (seed, "part", 0, number).
        """
        chosen = np.arange(len(labels))
        if self.classes is not None:
            chosen = chosen[np.isin(labels, self.classes)]
        if isinstance(self.samples, tuple):
            return chosen[np.isin(chosen, self.samples)].astype(np.int64)
        if self.samples is not None:
            order = numpy_generator(seed, "part", 0, self.number).permutation(len(chosen))
            chosen = np.sort(chosen[order[: round(self.samples * len(chosen))]])
        return chosen.astype(np.int64)

    def check(self, num_rows: int, num_classes: int) -> None:
        """Hold it against data that have so many rows of its client, and so many classes.

        Raises
        ------
        ConfigError
            It names a single row that the client does not have, or a class that there is not.
        """
        if isinstance(self.samples, tuple) and max(self.samples) >= num_rows:
            raise ConfigError(
                f"samples: client {self.client} has {num_rows} rows, counted from 0; there is no row "
                f"{max(self.samples)}"
            )
        if self.classes is not None and max(self.classes) >= num_classes:
            raise ConfigError(
                f"classes: the data have {num_classes} classes, counted from 0; there is no class "
                f"{max(self.classes)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        samples = list(self.samples) if isinstance(self.samples, tuple) else self.samples
        classes = None if self.classes is None else list(self.classes)
        return {"number": self.number, "client": self.client, "samples": samples, "classes": classes}

    @classmethod
    def from_dict(cls, part: Mapping[str, Any]) -> Part:
        """Inverse of :meth:`to_dict`."""
        samples, classes = part["samples"], part["classes"]
        return cls(
            int(part["number"]),
            int(part["client"]),
            tuple(samples) if isinstance(samples, list) else samples,
            None if classes is None else tuple(classes),
        )

    def __str__(self) -> str:
        """Say what it is in a few words, without the client: ``50 % of the samples of class 2``."""
        words = []
        if isinstance(self.samples, tuple):
            words.append(f"{len(self.samples)} sample{'s' * (len(self.samples) > 1)}")
        elif self.samples is not None:
            words.append(f"{100 * self.samples:g} % of the samples")
        if self.classes is not None:
            numbers = ", ".join(map(str, self.classes))
            words.append(f"class {numbers}" if len(self.classes) == 1 else f"classes {numbers}")
        return " of ".join(words) or "all samples"


@dataclass(frozen=True)
class Assignment:
    """What of its data a client is to work with in a round, where that is not simply all.

    Attributes
    ----------
    client : int
    part : Part or None
        Only this; None: everything.
    without : tuple of Part
        What has been forgotten already, or is going to be: none of it.
    """

    client: int
    part: Part | None = None
    without: tuple[Part, ...] = ()

    def rows(self, labels: npt.NDArray[np.integer[Any]], seed: int) -> Rows:
        """Return the client's rows to work with, ascending."""
        everything = np.arange(len(labels), dtype=np.int64)
        chosen = everything if self.part is None else self.part.rows(labels, seed)
        for part in self.without:
            chosen = np.setdiff1d(chosen, part.rows(labels, seed), assume_unique=True)
        return chosen

    @property
    def rest(self) -> Assignment:
        """What the client keeps when this is forgotten: everything, where it is not about a part, is nothing then."""
        if self.part is None:
            return Assignment(self.client, Part(-1, self.client, classes=()))
        return Assignment(self.client, None, (*self.without, self.part))

    def __str__(self) -> str:
        """Say whose and what it is: ``client 3, class 2``; of what is left out nothing."""
        return f"client {self.client}" + ("" if self.part is None else f", {self.part}")

    def dumps(self) -> str:
        """Return one line of JSON, as a message carries it."""
        part = None if self.part is None else self.part.to_dict()
        return json.dumps(
            {"client": self.client, "part": part, "without": [p.to_dict() for p in self.without]}
        )

    @classmethod
    def loads(cls, text: str) -> Assignment:
        """Inverse of :meth:`dumps`.

        Raises
        ------
        ConfigError
            The text is none of :meth:`dumps`.
        """
        place = "the server's message: assignment"
        try:
            told = loads_object(text, place)
            part = None if told["part"] is None else Part.from_dict(told["part"])
            return cls(int(told["client"]), part, tuple(map(Part.from_dict, told["without"])))
        except JsonError as error:
            raise ConfigError(str(error)) from None
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{place}: must be a client, a part and parts without which") from None


class Parts:
    """All parts that a federation's requests may name.

    Parameters
    ----------
    parts
        Of different numbers.
    """

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._by_number = {part.number: part for part in parts}
        self._hash = hash(tuple(self._by_number.values()))  # once: there may be as many as clients

    def __bool__(self) -> bool:
        return bool(self._by_number)

    def __len__(self) -> int:
        return len(self._by_number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and self._by_number == other._by_number

    def __hash__(self) -> int:
        return self._hash

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_number)

    def __contains__(self, number: int) -> bool:
        return number in self._by_number

    def __getitem__(self, number: int) -> Part:
        return self._by_number[number]

    def owner(self, number: int) -> int:
        """Return the client that a number is about: itself, or the one whose part it is."""
        return self._by_number[number].client if number in self._by_number else number

    def clients(self, numbers: Iterable[int]) -> frozenset[int]:
        """Return those of the numbers that are whole clients."""
        return frozenset(n for n in numbers if n not in self._by_number)

    def _by_client(self, numbers: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return client → those of the numbers that are parts of its data, ascending."""
        found: dict[int, list[int]] = {}
        for number in sorted(set(numbers) & self._by_number.keys()):
            found.setdefault(self._by_number[number].client, []).append(number)
        return {client: tuple(parts) for client, parts in found.items()}

    def without(
        self, train: Sequence[int], forget: Sequence[int], gone: Iterable[int], forgotten: Iterable[int]
    ) -> dict[int, tuple[int, ...]]:
        """Return, for each that takes part in a round, the parts of its data that it must leave out.

        Parameters
        ----------
        train, forget
            Clients that train; clients and parts that are forgotten in this round.
        gone
            All clients and parts that must not be trained on any more.
        forgotten
            Those of them that have been forgotten before: nothing is forgotten twice.
        """
        if not self._by_number:
            return {}
        of_gone, of_forgotten = self._by_client(gone), self._by_client(forgotten)
        left_out = {k: of_gone.get(k, ()) for k in train}
        left_out |= {u: tuple(p for p in of_forgotten.get(self.owner(u), ()) if p != u) for u in forget}
        for earlier, u in self._beside(forget):  # rows of both are forgotten with the one of them
            left_out[u] = tuple(sorted({*left_out[u], earlier}))
        return {number: parts for number, parts in left_out.items() if parts}

    def _beside(self, forget: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield pairs of parts of one client's data that are forgotten in one round, the lower number first."""
        for parts in self._by_client(forget).values():
            yield from combinations(parts, 2)

    def assignments(
        self, numbers: Iterable[int], without: Mapping[int, Sequence[int]]
    ) -> dict[int, Assignment]:
        """Return the assignment of everyone who does not simply work with all of its data."""
        found = {}
        for number in numbers:
            part = self._by_number.get(number)
            left_out = tuple(self._by_number[p] for p in without.get(number, ()))
            if part is not None or left_out:
                found[number] = Assignment(self.owner(number), part, left_out)
        return found


NONE = Parts()
