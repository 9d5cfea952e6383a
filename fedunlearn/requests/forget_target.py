"""What a live request asks for: whole clients; a share or single samples of their data; classes.

The same three kinds as an experiment file's ``[[forget]]`` entries name, under the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.errors import UserError
from fedunlearn.parts import Part
from fedunlearn.plurals import whose

Samples = float | Sequence[int] | Mapping[int, Sequence[int]] | None
"""A share of each client's rows; single rows of the one client, counted from 0; client → its rows; None: all."""

HIGHEST = 2**31
"""No row and no class has this number or a higher one."""


NOBODY = "clients: is missing; name clients, or classes to forget every client's samples of them"
"""What is wrong where neither clients nor classes are named."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for, of any sense or none: `problem` says which.

    Attributes
    ----------
    clients : tuple or None
        None: everyone.
    samples : float, tuple, dict or None
    classes : tuple or None
    """

    clients: tuple[int, ...] | None
    samples: float | tuple[int, ...] | Mapping[int, tuple[int, ...]] | None = None
    classes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, clients: Iterable[int] | None, samples: Samples, classes: Iterable[int] | None) -> Wanted:
        """Take over what somebody asks for."""
        taken: float | tuple[int, ...] | Mapping[int, tuple[int, ...]] | None
        if isinstance(samples, Mapping):
            taken = {client: tuple(rows) for client, rows in samples.items()}
        else:
            taken = tuple(samples) if isinstance(samples, Sequence) else samples
        return cls(
            None if clients is None else tuple(clients),
            taken,
            None if classes is None else tuple(classes),
        )

    @property
    def whole(self) -> bool:
        """Whether all data of its clients are to be forgotten."""
        return self.samples is None and self.classes is None

    def problem(self, num_clients: int, task: str, num_classes: int | None = None) -> str | None:
        """Say in one line what is wrong with it, or return None; without `num_classes` a class may be any."""
        return (
            self._problem_of_clients(num_clients)
            or self._problem_of_samples()
            or self._problem_of_classes(task, num_classes)
        )

    def owners(self, num_clients: int) -> tuple[int, ...]:
        """Return the clients that it is about, ascending."""
        return tuple(range(num_clients)) if self.clients is None else tuple(sorted(set(self.clients)))

    def parts(self, owners: Sequence[int]) -> tuple[Part, ...]:
        """Return the parts that it names, client by client, still without numbers; none of whole clients."""
        if self.whole:
            return ()
        classes = None if self.classes is None else tuple(sorted(set(self.classes)))
        return tuple(Part(-1, client, self._samples_of(client), classes) for client in owners)

    def _samples_of(self, client: int) -> float | tuple[int, ...] | None:
        samples = self.samples[client] if isinstance(self.samples, Mapping) else self.samples
        if samples is None:
            return None
        return tuple(sorted(samples)) if isinstance(samples, tuple) else float(samples)

    def _problem_of_clients(self, num_clients: int) -> str | None:
        if self.clients is None:
            if self.classes is None:
                return NOBODY
            return None
        if not self.clients:
            return "clients: is empty; name at least one client"
        wrong = [c for c in self.clients if not _is_number(c) or c >= num_clients]
        if wrong:
            return f"clients: {wrong[0]!r} is not a client of this federation; must be from 0 to {num_clients - 1}"
        return None

    def _problem_of_samples(self) -> str | None:
        samples = self.samples
        if samples is None:
            return None
        if isinstance(samples, Mapping):
            if self.clients is None or set(samples) != set(self.clients):
                return "samples: must have the rows of each named client and of no other"
            return next((why for rows in samples.values() if (why := _problem_of_rows(rows))), None)
        if isinstance(samples, tuple):
            if self.clients is None or len(set(self.clients)) != 1:
                return "samples: single rows belong to one client; name it, or give the rows by client"
            return _problem_of_rows(samples)
        if type(samples) not in (int, float) or not 0 < samples <= 1:
            return f"samples: {samples!r} is not a share; must be above 0 and at most 1, or a list of rows"
        if samples == 1 and self.classes is None:
            return "samples: 1 means all of them; leave it out to forget whole clients"
        return None

    def _problem_of_classes(self, task: str, num_classes: int | None) -> str | None:
        if self.classes is None:
            return None
        if not self.classes:
            return "classes: is empty; name at least one class"
        wrong = [c for c in self.classes if not _is_number(c)]
        if wrong:
            return f"classes: {wrong[0]!r} is not a class; must be a whole number, counted from 0"
        if task == "segmentation":
            return "classes: are meaningless for masks, as every mask contains every class"
        if num_classes is not None and max(self.classes) >= num_classes:
            return (
                f"classes: {max(self.classes)} is not a class of this federation's data; must be from 0 to "
                f"{num_classes - 1}"
            )
        return None


def samples_in(text: str | None, clients: Sequence[int] | None) -> Samples:
    """Read which samples are meant: ``0.5``, a share; ``4,17,33``, rows; or a JSON file of rows, as a TOML may name.

    Raises
    ------
    UserError
        It is none of them, or the file cannot be used.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+(,[0-9]+)*,?", text) and "," in text:
        return [int(row) for row in text.rstrip(",").split(",")]
    try:
        share = float(text)
    except ValueError:
        return _samples_in_file(text, clients)
    if re.fullmatch(r"[0-9]+", text):
        raise UserError(
            f"--samples {text}: a share is between 0 and 1, such as 0.5; write a single row with a comma: "
            f"{text},"
        )
    return share


def _samples_in_file(text: str, clients: Sequence[int] | None) -> Samples:
    from fedunlearn.config.targets import read_samples

    if not _exists(text) and not text.endswith(".json"):  # else it is a file that was meant
        raise UserError(
            f"--samples {text}: must be a share such as 0.5, rows such as 3,17,42 (a single one: 3,), or a JSON file "
            "of rows"
        )
    if not clients:
        raise UserError(f"--samples {text}: needs --client, to say whose rows the file names")
    return dict(read_samples(text, sorted(set(clients))))


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except OSError:  # of a list of very many rows, too long for a name
        return False


def asked_samples(parts: Sequence[Part]) -> float | list[int] | dict[str, list[int]] | None:
    """Return which samples a request for these parts asked for, as JSON types."""
    named = {str(part.client): part.samples for part in parts}
    rows = {client: list(samples) for client, samples in named.items() if isinstance(samples, tuple)}
    if rows:
        return rows if len(rows) > 1 else next(iter(rows.values()))
    return next((samples for samples in named.values() if not isinstance(samples, tuple)), None)


def asked_classes(parts: Sequence[Part]) -> list[int] | None:
    """Return which classes a request for these parts asked for; None: of every class."""
    return next((list(part.classes) for part in parts if part.classes is not None), None)


def in_words(numbers: Sequence[int], parts: Sequence[Part]) -> str:
    """Say what numbers of clients, or of parts of their data, are: "clients 3 and 5", "class 2 of client 0"."""
    return whose(() if parts else numbers, ((str(part), part.client) for part in parts))


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < HIGHEST


def _problem_of_rows(rows: Sequence[int]) -> str | None:
    if not rows:
        return "samples: is empty; name at least one row"
    wrong = [row for row in rows if not _is_number(row)]
    if wrong:
        return f"samples: {wrong[0]!r} is not a row; rows are whole numbers, counted from 0"
    if len(set(rows)) != len(rows):
        return "samples: names a row twice; name each row once"
    return None
