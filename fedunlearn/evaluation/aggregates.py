"""Scorecard rows repeated over seeds and target sets, as one line each: mean, spread and interval.

Each row counts once: the interval is that of the mean over rows, whatever they share (two target sets of
one seed share the original model). Nothing is dropped silently: every statistic carries the number of
values it rests on, and a recovery that did not happen is counted as censored.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedunlearn.evaluation.rows import Row
from fedunlearn.randomness import numpy_generator

RESAMPLES = 2000
COSTS = ("client_epochs", "bytes_up", "bytes_down")
"""Costs worth a mean. Seconds are left out: they are no property of the method and differ on every run."""


def summary(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation (n − 1), 95 % bootstrap interval of the mean, and n.

    The interval is the percentile one (Efron) of 2000 resamples, drawn from the generator at
    (0, "bootstrap") afresh for every statistic, so that it depends on these values alone.

    Parameters
    ----------
    values : iterable of float or None
        None, something that was not measured, is left out and not counted in n.

    Returns
    -------
    dict
        "mean" (null for n = 0); "std", "low", "high" (null for n < 2); "n".
    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < 2:
        mean = float(known[0]) if len(known) else None
        return {"mean": mean, "std": None, "low": None, "high": None, "n": len(known)}
    generator = numpy_generator(0, "bootstrap")
    draws = generator.integers(0, len(known), size=(RESAMPLES, len(known)))
    low, high = np.percentile(known[draws].mean(axis=1), [2.5, 97.5])
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)),
        "low": float(low),
        "high": float(high),
        "n": len(known),
    }


def aggregate(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summarise the rows of each (label, at), in the order in which they first appear.

    Returns
    -------
    list of dict
        "label", "at", "n" (rows), "censored" (rows that did not recover), "diverged" and "failed" (rows without
        a model, or whose forgetting failed, which no statistic is about; left out where there are
        none), then by name a ``summary`` of
        "metrics", "gap", "abs_gap" (of |gap|: the authors' figure), "floor" and "cost"; by name in
        "floor_range" the least and the largest distance between retrainings; and of
        "recovery_rounds" and "recovery_rounds_authors", with a "median" in which a censored row counts as
        later than every other (null when the median itself is censored), for the mean is over the
        recovered rows alone and flatters a method that often fails.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.label, row.at), []).append(row)
    return [_line(label, at, group) for (label, at), group in groups.items()]


def _line(label: str, at: str, rows: Sequence[Row]) -> dict[str, Any]:
    awaited = [row for row in rows if row.recovered is not None]
    gaps = [row.gap for row in rows]
    lost = {"diverged": sum(row.diverged for row in rows), "failed": sum(row.failed for row in rows)}
    return {
        "label": label,
        "at": at,
        **{how: count for how, count in lost.items() if count},
        "n": len(rows),
        "censored": sum(not row.recovered for row in awaited),
        "metrics": _by_name([row.metrics for row in rows]),
        "gap": _by_name(gaps),
        "abs_gap": _by_name([{name: _absolute(value) for name, value in gap.items()} for gap in gaps]),
        "floor": _by_name([row.floor for row in rows]),
        "floor_range": _ranges([row.floors for row in rows]),
        "recovery_rounds": _recovery([row.recovery_rounds for row in awaited]),
        "recovery_rounds_authors": _recovery([row.recovery_rounds_authors for row in awaited]),
        "cost": {name: summary(getattr(row.cost, name) for row in rows) for name in COSTS},
    }


def _by_name(measured: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float | int | None]]:
    names = dict.fromkeys(name for values in measured for name in values)
    return {name: summary(values.get(name) for values in measured) for name in names}


def _ranges(floors: Sequence[dict[str, tuple[float | None, ...]]]) -> dict[str, list[float] | None]:
    found: dict[str, list[float] | None] = {}
    for name in dict.fromkeys(name for values in floors for name in values):
        known = [value for values in floors for value in values.get(name, ()) if value is not None]
        found[name] = [min(known), max(known)] if known else None
    return found


def _recovery(rounds: Sequence[int | None]) -> dict[str, float | int | None]:
    late = float("inf")
    median = statistics.median(late if value is None else value for value in rounds) if rounds else late
    return {**summary(rounds), "median": None if median == late else float(median)}


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)
