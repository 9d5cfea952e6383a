"""Several gaps in one number, as the literature on centralised unlearning has them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedunlearn.evaluation.catalogue import QUALITY

Values = Mapping[str, float | None]


def average_gap(metrics: Values, retrain: Values, *, task: str = "classification") -> float | None:
    """Return the mean of |gap| over forget, retain and test quality and the SVC attack, in points.

    With UA = 100 − forget accuracy, RA, TA and MIA-efficacy = 100 − mia_svc these are |ΔUA|, |ΔRA|, |ΔTA|, |ΔMIA|.
    Where whole classes are forgotten, TA is over the test data of the classes that remain, as class unlearning has it
    (Boundary Unlearning's accuracy on D_rt, SalUn's code): of a forgotten class there is nothing to be right about.
    None where one of the four is not known. Source: Fan et al., "SalUn", ICLR 2024 (there with an attack of its own).
    """
    name = QUALITY[task]
    test = _test(metrics, name)
    found = _gaps(metrics, retrain, (f"forget_{name}", f"retain_{name}", test, "mia_svc"))
    return None if found is None else sum(map(abs, found)) / len(found)


def tug_of_war(metrics: Values, retrain: Values, *, task: str = "classification") -> float | None:
    """Return Π (1 − |gap| / 100) over forget, retain and test quality: 1 is retraining, 0 as far as can be.

    Of the test data as in :func:`average_gap`. None where one of them is not known. Source: Zhao et al., "What makes
    unlearning hard and what to do about it", NeurIPS 2024.
    """
    name = QUALITY[task]
    found = _gaps(metrics, retrain, (f"forget_{name}", f"retain_{name}", _test(metrics, name)))
    return None if found is None else math.prod(1 - abs(gap) / 100 for gap in found)


def summaries(metrics: Values, retrain: Values, *, task: str = "classification") -> dict[str, float | None]:
    """Return both by their names in ``catalogue.MEASURES``."""
    return {
        "average_gap": average_gap(metrics, retrain, task=task),
        "tug_of_war": tug_of_war(metrics, retrain, task=task),
    }


def _test(metrics: Values, name: str) -> str:
    """Return which quality on test data counts: on the classes that remain, where others are forgotten."""
    remaining = f"retain_test_{name}"
    return remaining if remaining in metrics else f"test_{name}"


def _gaps(metrics: Values, retrain: Values, names: tuple[str, ...]) -> list[float] | None:
    found = []
    for name in names:
        mine, theirs = metrics.get(name), retrain.get(name)
        if mine is None or theirs is None:
            return None
        found.append(mine - theirs)
    return found
