"""Which rows of a scorecard stand beside each other: those of the same seed and the same forgotten data.

A *case* is a seed and what is forgotten under it. PUF may recover in some cases only, a method may diverge in others,
a measure may have no value in a third: means over whatever each method has would compare different cases. Pure
functions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Case = tuple[int | None, str, bool]
"""A seed, what is forgotten (alike in every run that forgets the same), and whether that is a timeline's end."""

FORGOTTEN = ("clients", "samples", "classes", "words")


def case_of(row: Json) -> Case:
    """Return the case that a row is about."""
    forget = row.get("forget") or {}
    what = {name: forget[name] for name in FORGOTTEN if forget.get(name) not in (None, "")}
    return row.get("seed"), json.dumps(what, sort_keys=True), row.get("at") == "final"


def value_of(row: Json, kind: str, metric: str) -> float | None:
    """Return one number of a row; None where it is absent, null, or no number.

    Parameters
    ----------
    kind
        ``metrics``, ``gap``, ``abs_gap`` (the size of the gap) or ``floor``.
    """
    held = (row.get("gap" if kind == "abs_gap" else kind) or {}).get(metric)
    if held is None or not math.isfinite(held):
        return None
    return abs(float(held)) if kind == "abs_gap" else float(held)


def is_sound(row: Json) -> bool:
    """Whether the row is of a model that forgot as it was told to: neither diverged nor failed."""
    return not (row.get("diverged") or row.get("failed"))


def cases_with(rows: Iterable[Json], metric: str) -> frozenset[Case]:
    """Return the cases in which a metric has a value."""
    return frozenset(case_of(row) for row in rows if value_of(row, "metrics", metric) is not None)


def common_cases(beside: Mapping[str, Sequence[Json]], metric: str) -> frozenset[Case]:
    """Return the cases in which every method has a value of a metric.

    A method without any value is left out, and so is one that diverged or failed in some case, as long as there are
    others: it cannot take the numbers of the sound ones away.

    Parameters
    ----------
    beside
        By method, its rows at one moment.
    """
    known = {label: cases_with(rows, metric) for label, rows in beside.items()}
    known = {label: cases for label, cases in known.items() if cases}
    sound = [cases for label, cases in known.items() if all(map(is_sound, beside[label]))]
    every = sound or list(known.values())
    return frozenset.intersection(*every) if every else frozenset()
