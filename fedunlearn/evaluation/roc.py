"""Two readings of the curve of true against false positives, from two sets of scores.

A higher score means "more likely a member". Both depend on the scores' order only.
"""

import math

import numpy as np
import numpy.typing as npt

from fedunlearn.evaluation.scored import Unmeasurable

Scores = npt.NDArray[np.float64]


def auc(members: Scores, non_members: Scores) -> float:
    """Probability that a member scores higher than a non-member, a tie counting one half (0 to 1).

    Raises
    ------
    Unmeasurable
        If one of the two sets is empty.
    """
    _need_both(members, non_members)
    ordered = np.sort(non_members)
    below = np.searchsorted(ordered, members, side="left")
    not_above = np.searchsorted(ordered, members, side="right")
    # Twice the number of pairs won is an integer, so that the sum is exact.
    return int((below + not_above).sum()) / (2 * len(members) * len(non_members))


def tpr_at_fpr(members: Scores, non_members: Scores, *, percent: float = 1.0) -> float:
    """Largest share of members any threshold finds with at most ``percent`` % false positives, in percent.

    A threshold t calls a score ≥ t a member; thresholds between ties do not exist and the curve is not
    interpolated, so with fewer than 100 non-members and ``percent`` = 1 no false positive is allowed
    (Carlini et al., "Membership Inference Attacks From First Principles", 2022, motivate the measure).

    Raises
    ------
    Unmeasurable
        If one of the two sets is empty.
    """
    _need_both(members, non_members)
    # The small term undoes a product that falls short of its integer, as 0.57 * 100 does.
    allowed = math.floor(percent * len(non_members) / 100 + 1e-9)
    if allowed >= len(non_members):
        return 100.0
    first_forbidden = np.sort(non_members)[len(non_members) - 1 - allowed]
    return 100 * int((members > first_forbidden).sum()) / len(members)


def _need_both(members: Scores, non_members: Scores) -> None:
    if not len(members) or not len(non_members):
        raise Unmeasurable("there are no members or no non-members to score")
