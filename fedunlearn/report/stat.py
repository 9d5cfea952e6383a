"""What is said of one measure over several rows of a scorecard: mean, spread, floor, and whether it shows anything.

Pure functions of rows; which rows belong together is in ``report.selection``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fedunlearn.evaluation.aggregates import summary
from fedunlearn.report.selection import value_of

Json = Mapping[str, Any]
Mark = Literal["within", "blind", ""]


@dataclass(frozen=True)
class Stat:
    """Numbers of several seeds and requests, and their mean, spread and 95 % bootstrap interval.

    ``None`` = not measured, or of one number no spread.
    """

    values: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Their mean."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Their standard deviation, n − 1."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 else None

    @property
    def low(self) -> float | None:
        """The lower end of the interval of the mean."""
        return self._summary["low"]

    @property
    def high(self) -> float | None:
        """The upper end of the interval of the mean."""
        return self._summary["high"]

    @cached_property
    def _summary(self) -> dict[str, float | int | None]:
        return summary(self.values)  # 2000 resamples: only where somebody asks


def stat_of(rows: Iterable[Json], kind: str, metric: str) -> Stat:
    """Return the statistic of one metric over rows; ``kind`` is metrics, gap, abs_gap or floor."""
    known = (value_of(row, kind, metric) for row in rows)
    return Stat(tuple(value for value in known if value is not None))


def spread_of(rows: Iterable[Json], metric: str) -> tuple[float, float, int] | None:
    """Return (least, largest, how many) distances to further retrainings over rows, None of fewer than two."""
    held = ((row.get("floors") or {}).get(metric) or () for row in rows)
    known = [value for values in held for value in values if value is not None]
    return (min(known), max(known), len(known)) if len(known) > 1 else None


def tells(original: Sequence[Json], metric: str, *, gap: Stat, floor: Stat) -> bool:
    """Whether a measure can tell the original from a retrained model, in the very cases of a method's rows.

    Parameters
    ----------
    original
        The original's rows of these cases.
    gap, floor
        Of the method, at its own moment. The floor of the original's moment counts as well.
    """
    before, its_floor = (stat_of(original, kind, metric) for kind in ("abs_gap", "floor"))
    if before.mean is None or before.n != gap.n:
        return False
    return before.mean > max(floor.mean or 0.0, its_floor.mean or 0.0)


def mark_of(rows: Sequence[Json], original: Sequence[Json], metric: str) -> Mark:
    """Return what a method's gap in a metric shows; empty: that the model is no retrained one.

    ``within``: it is within the floor, in cases in which the original is not: it cannot be told from retraining.
    ``blind``: the original is, too, or nobody knows: the measure shows nothing.
    """
    gap, floor = (stat_of(rows, kind, metric) for kind in ("abs_gap", "floor"))
    if gap.mean is None or floor.mean is None or gap.mean > floor.mean:
        return ""
    return "within" if tells(original, metric, gap=gap, floor=floor) else "blind"


def mean_cost(rows: Iterable[Json], name: str) -> float | None:
    """Return the mean cost over the rows that recorded it."""
    recorded = [(row.get("cost") or {}).get(name) for row in rows]
    values = [float(value) for value in recorded if value is not None]
    return sum(values) / len(values) if values else None
