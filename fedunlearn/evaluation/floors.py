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

from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.evaluation.metrics import BUILT_IN

Values = dict[str, float | None]

CRITICAL = (0.994, 0.926, 0.821, 0.740, 0.680, 0.634, 0.598, 0.568)
"""Of Dixon's Q for 3, 4, … 10 values, at 1 %; of more than 10 the last one is used, which names fewer."""
LEAST = 2.0
"""Percentage points, or mm, that an outlier must be from the nearest of the others: less changes no reading."""
COMPARABLE = ("%", "mm")
"""Units in which that has a meaning."""


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


def gaps(
    metrics: Mapping[str, float | None],
    retrain: Mapping[str, float | None],
    declared: Mapping[str, Declaration] = BUILT_IN,
) -> Values:
    """Return model − retrain for every name, signed; None where either was not measured.

    A metric that compares with retrain is held against retrain's value by definition, measured or not: a distance is
    its own gap.
    """
    return {
        name: _difference(value, retrain.get(name), declared.get(name)) for name, value in metrics.items()
    }


def floor_of(
    retrain: Mapping[str, float | None],
    others: Sequence[Mapping[str, float | None]],
    declared: Mapping[str, Declaration] = BUILT_IN,
) -> Floor:
    """Return the floor: |other retrain − retrain| for every name, of several the median.

    The others are measured like methods: their distances to retrain are those between retrainings.
    """
    names = dict.fromkeys(name for other in others for name in other)
    each = [gaps(other, retrain, declared) for other in others]
    distances = {name: tuple(_size(found.get(name)) for found in each) for name in names}
    return Floor({name: _median(values) for name, values in distances.items()}, distances)


def outliers(
    retrainings: Mapping[str, Mapping[str, float | None]],
    declared: Mapping[str, Declaration] = BUILT_IN,
) -> tuple[Outlier, ...]:
    """Return the retrainings that are far from all others; of two nobody can say which one is.

    Metrics that compare with retrain are left out: retrain's own value is no sample of anything.

    Parameters
    ----------
    retrainings
        The measures of the retrained model and of all further ones, by the names of their branches.
    """
    found = []
    names = dict.fromkeys(name for values in retrainings.values() for name in values)
    for name in names:
        metric = declared.get(name)
        if metric is None or metric.retrained_value is not None or metric.unit not in COMPARABLE:
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


def _difference(value: float | None, retrain: float | None, metric: Declaration | None) -> float | None:
    by_definition = None if metric is None else metric.retrained_value
    reference = retrain if by_definition is None else by_definition
    return None if value is None or reference is None else value - reference


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
