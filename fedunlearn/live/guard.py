"""The guard of a live federation: what a step that forgets may do to the model at most. Pure functions.

What one client's answer may be, in whatever round, is in :mod:`fedunlearn.live.screening`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from fedunlearn.config import GuardConfig
from fedunlearn.federation.sums import Contribution, norm_of
from fedunlearn.models.state import ModelState
from fedunlearn.server.rounds import is_finite


def usual_norm(norms: Mapping[int, float], before: float | None) -> float | None:
    """Return the median ‖Δ‖₂ of a round's retained updates; of a round without any, what it was before."""
    return median(norms.values()) if norms else before


def bounded(
    forgetting: Sequence[Contribution], usual: float | None, guard: GuardConfig
) -> list[Contribution]:
    """Return the updates to forget by, those that are too long shortened to ``max_norm`` times the usual norm.

    Parameters
    ----------
    usual
        :func:`usual_norm` of the last round that retained anybody; None, before there was one: nothing is bounded.

    Notes
    -----
    An honest client's update is about as long as the others'. One who asks to be forgotten in order to do harm can
    choose the direction of the step, and with this no longer its length.
    """
    if not guard.enabled or usual is None:
        return list(forgetting)
    return [_shortened(c, guard.max_norm * usual) for c in forgetting]


def _shortened(contribution: Contribution, longest: float) -> Contribution:
    norm = norm_of(contribution.delta)
    if norm <= longest:
        return contribution
    return replace(contribution, delta=contribution.delta * (longest / norm))


def objection(model: ModelState, before: float | None, after: float | None, guard: GuardConfig) -> str:
    """Say why a step that forgot somebody is to be rolled back; an empty string: it may stand.

    Parameters
    ----------
    model
        After the step.
    before, after : float or None
        Validation quality in percent. None: it could not be measured; then only the weights are judged.
    """
    if not is_finite(model):  # never to be kept, whatever else an operator has allowed
        return "the weights are not finite"
    if not guard.enabled:
        return ""
    if before is None or after is None:
        return ""
    if not math.isfinite(after):
        return "the validation quality is not finite"
    if before - after > guard.max_drop:
        return (
            f"validation quality fell from {before:.1f} to {after:.1f} %, "
            f"guard.max-drop = {guard.max_drop:g} points"
        )
    return ""
