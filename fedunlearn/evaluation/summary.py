"""Several gaps in one number, as the literature on centralised unlearning has them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def average_gap(gaps: Sequence[float]) -> float:
    """Return the mean of |gap| over forget, retain and test quality and the SVC attack, in points.

    With UA = 100 − forget accuracy, RA, TA and MIA-efficacy = 100 − mia_svc these are |ΔUA|, |ΔRA|, |ΔTA|, |ΔMIA|.
    Where whole classes are forgotten, TA is over the test data of the classes that remain, as class unlearning has it
    (Boundary Unlearning's accuracy on D_rt, SalUn's code): of a forgotten class there is nothing to be right about.
    Source: Fan et al., "SalUn", ICLR 2024 (there with an attack of its own).
    """
    return sum(map(abs, gaps)) / len(gaps)


def tug_of_war(gaps: Sequence[float]) -> float:
    """Return Π (1 − |gap| / 100) over forget, retain and test quality: 1 is retraining, 0 as far as can be.

    Of the test data as in :func:`average_gap`. Source: Zhao et al., "What makes unlearning hard and what to do about
    it", NeurIPS 2024.
    """
    return math.prod(1 - abs(gap) / 100 for gap in gaps)
