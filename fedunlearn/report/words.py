"""Names, numbers and units as a reader sees them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.parts import Part

NOTHING = "–"  # what a null is shown as, everywhere
NAMED = 12  # so many clients are named one by one

MOMENTS: dict[str, tuple[str, str]] = {
    "request": ("when asked", "the last round before the request is answered"),
    "unlearned": ("just unlearned", "right after the unlearning round, before any recovery"),
    "recovered": ("once recovered", "the first round within ε of retraining on validation data"),
    "compare": ("at PUF's recovery", "every method at the round in which PUF has recovered"),
    "cap": ("at the cap", "every method after the greatest allowed number of recovery rounds"),
    "final": ("at the end", "the last round of the federation"),
}
"""The ``at`` of a scorecard row → (short words, explanation), in the order in which they happen."""

MARKS = {"within": "✓ ", "blind": "≈ ", "": ""}
"""What stands before a gap, see ``fedunlearn.report.stat.mark_of``."""

ORIGINS = {
    "phantom": "Phantom data: synthetic, not patients.",
    "synthetic": "Synthetic data: made by a program, not real images.",
}
"""Where the data of a run are from → what stands at the top of everything that is shown of it."""

SMOKE = "Smoke run: everything in little, the numbers mean nothing."
VALIDATION = "Test stands for the validation split here: the test split was not read (measures.unseen)."
"""Stands at the top of everything that is shown of a run with ``--smoke``."""

DIGITS = {"%": 1, "mm": 1}
"""Unit → decimals; all else has three."""


def origin_words(origin: str) -> str:
    """Return what must be said of where the data are from; empty for real data."""
    return ORIGINS.get(origin, f"Data: {origin}." if origin else "")


def moment(at: str) -> str:
    """Return the short words for a row's ``at``."""
    return MOMENTS.get(at, (at, ""))[0]


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """Return ``value`` with so many decimals, ``–`` for null; never ``-0.0``.

    >>> number(-0.04), number(3.14159, 2, sign=True), number(None)
    ('0.0', '+3.14', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    rounded = round(value, digits)
    if rounded == 0:
        return f"{0:.{digits}f}"
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def metric_help(metric: Declaration) -> str | None:
    """Return what a metric measures and where it should be, None where nobody has declared it."""
    if not metric.description:
        return None
    return f"{metric.description} ({metric.unit}); better: {metric.better_words}"


def measured(metric: Declaration, value: float | None, *, sign: bool = False) -> str:
    """Return a metric's value in its own precision: percentages and millimetres one decimal, all else three."""
    return number(value, DIGITS.get(metric.unit, 3), sign=sign)


def spread(mean: str, std: str) -> str:
    """Return ``mean ± std``, the mean alone where one repetition has no spread."""
    return mean if std == NOTHING else f"{mean} ± {std}"


def magnitude(value: float | None, unit: str) -> str:
    """Return a count of ``unit`` ("B", "s" or "") with at most three significant figures.

    >>> magnitude(81_960_000, "B"), magnitude(0.5, "s"), magnitude(4200, "s"), magnitude(42.66, "")
    ('82 MB', '0.5 s', '70 min', '42.7')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if unit == "s":
        scaled, word = (value, "s") if value < 180 else (value / 60, "min")
        if scaled >= 180 and word == "min":
            scaled, word = scaled / 60, "h"
    elif unit == "B":
        power = 0 if value < 1 else min(int(math.log10(value)) // 3, 5)
        scaled, word = value / 1000**power, ("B", "kB", "MB", "GB", "TB", "PB")[power]
    else:
        scaled, word = value, unit
    figures = f"{scaled:.0f}" if scaled >= 100 else f"{scaled:.3g}"
    return f"{figures} {word}".rstrip()


def few(numbers: Sequence[int], named: int = 3) -> str:
    """Return the first numbers, ``3, 17, 29, …``, or all where there are no more than ``named``."""
    return ", ".join([*map(str, numbers[:named]), *["…"] * (len(numbers) > named)])


class PartName(NamedTuple):
    """What a number stands for that is no client's: a part of a client's data."""

    what: str
    client: int


def names_of(parts: Iterable[Part]) -> dict[int, PartName]:
    """Return what to call parts of clients' data, by number."""
    return {part.number: PartName(str(part), part.client) for part in parts}


def forgotten(row: Mapping[str, Any], names: Mapping[int, str | PartName] | None = None) -> str:
    """Return what a row of a scorecard is about: ``client 3``, ``10 % of the samples of client 0``."""
    forget = row.get("forget") or {}
    return str(forget.get("words") or clients(forget.get("clients") or (), names))


def clients(numbers: Sequence[int], names: Mapping[int, str | PartName] | None = None) -> str:
    """Return ``client 3``, ``clients 2 and 3``, ``clients 1, 2 and 3``; ``no client`` for none.

    More than ``NAMED`` are counted instead: ``1,000 clients (3, 17, 29, …)``. Where clients have names, they
    stand behind the numbers: ``client 3 (UCL)``. Parts of clients' data: ``class 2 of clients 0 and 1``.
    """
    named = names or {}
    parts: dict[str, list[int]] = {}
    whole = []
    for number in numbers:
        name = named.get(number)
        if isinstance(name, PartName):
            parts.setdefault(name.what, []).append(name.client)
        else:
            whole.append(number)
    if parts:
        words = [f"{what} of {clients(owners, named)}" for what, owners in parts.items()]
        return " and ".join([*([clients(whole, named)] if whole else []), *words])
    if not numbers:
        return "no client"
    if len(numbers) > NAMED:
        return f"{len(numbers):,} clients ({few(numbers)})"
    each = [f"{number} ({named[number]})" if number in named else str(number) for number in numbers]
    if len(each) == 1:
        return f"client {each[0]}"
    return f"clients {', '.join(each[:-1])} and {each[-1]}"
