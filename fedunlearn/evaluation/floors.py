"""Gaps to the retrained model, and how far retrainings are from each other: the floor below which a gap is noise.

Pure functions of measures by name. A further retraining, with the same data and another seed, is measured like a
method; the floor is the median over several of its |gap|, so that one that went astray does not make it. Such a one
is named: Dixon's test of the retrained model and all further ones, at the level of 1 %. W. J. Dixon, "Processing data
for outliers", Biometrics 9 (1953); critical values of D. B. Rorabacher, Analytical Chemistry 63 (1991).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedunlearn.evaluation.catalogue import DISTANCES, MEASURES

Values = dict[str, float | None]

CRITICAL = (0.994, 0.926, 0.821, 0.740, 0.680, 0.634, 0.598, 0.568)
"""Of Dixon's Q for 3, 4, … 10 values, at 1 %; of more than 10 the last one is used, which names fewer."""
LEAST = 2.0
"""Percentage points, or mm, that an outlier must be from the nearest of the others: less changes no reading."""
COMPARABLE = ("%", "mm")
"""Units in which that has a meaning."""
SUMMARIES = ("average_gap",)
"""Measures that are gaps by themselves: the retrained model's own is 0 by definition and no sample of anything."""


@dataclass(frozen=True)
class Outlier:
    """A retraining that is far from all others by a measure.

    Attributes
    ----------
    retraining : str
        Its name; the retrained model itself may be the one.
    measure : str
    value, median : float
        Its own, and the others'.
    """

    retraining: str
    measure: str
    value: float
    median: float


@dataclass(frozen=True)
class Floor:
    """How far further retrainings are from the retrained model, by measure.

    Attributes
    ----------
    median : dict of str to float or None
        Of the known distances; None where there is none.
    distances : dict of str to tuple of float or None
        Of every further retraining, in order.
    """

    median: Values
    distances: dict[str, tuple[float | None, ...]]


def gaps(metrics: Mapping[str, float | None], retrain: Mapping[str, float | None]) -> Values:
    """Return model − retrain for every name, signed; None where either was not measured.

    A distance to retrain is its own gap: retrain's distance to itself is 0, measured or not.
    """
    return {name: _difference(name, value, retrain) for name, value in metrics.items()}


def floor_of(retrain: Mapping[str, float | None], others: Sequence[Mapping[str, float | None]]) -> Floor:
    """Return the floor: |other retrain − retrain| for every name, of several the median.

    The others are measured like methods: their distances to retrain are those between retrainings.
    """
    names = dict.fromkeys(name for other in others for name in other)
    each = [gaps(other, retrain) for other in others]
    distances = {name: tuple(_size(found.get(name)) for found in each) for name in names}
    return Floor({name: _median(values) for name, values in distances.items()}, distances)


def outliers(retrainings: Mapping[str, Mapping[str, float | None]]) -> tuple[Outlier, ...]:
    """Return the retrainings that are far from all others; of two nobody can say which one is.

    Parameters
    ----------
    retrainings
        The measures of the retrained model and of all further ones, by the names of their branches.
    """
    found = []
    names = dict.fromkeys(name for values in retrainings.values() for name in values)
    for name in names:
        if (
            name in DISTANCES
            or name in SUMMARIES
            or name not in MEASURES
            or MEASURES[name].unit not in COMPARABLE
        ):
            continue
        known = {
            label: value for label, values in retrainings.items() if (value := values.get(name)) is not None
        }
        odd = _odd(list(known.values()))
        if odd is not None:
            label = list(known)[odd]
            others = [value for other, value in known.items() if other != label]
            found.append(Outlier(label, name, known[label], statistics.median(others)))
    return tuple(found)


def _odd(values: Sequence[float]) -> int | None:
    """Return the place of the value that Dixon's test calls an outlier, None where there is none."""
    if len(values) < 3:
        return None
    ranked = sorted(range(len(values)), key=values.__getitem__)
    below = values[ranked[1]] - values[ranked[0]]
    above = values[ranked[-1]] - values[ranked[-2]]
    place, gap = (ranked[0], below) if below > above else (ranked[-1], above)
    critical = CRITICAL[min(len(values), 10) - 3]
    return place if gap >= LEAST and gap > critical * (values[ranked[-1]] - values[ranked[0]]) else None


def _difference(name: str, value: float | None, retrain: Mapping[str, float | None]) -> float | None:
    reference = 0.0 if name in DISTANCES else retrain.get(name)
    return None if value is None or reference is None else value - reference


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
