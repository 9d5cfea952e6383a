"""Metrics taken of one model: what goes into a row of the scorecard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.metric import Metric
from fedunlearn.evaluation.scored import Unmeasurable


class Measures(dict[str, float | None]):
    """Values by name; None for what could not be measured, and ``reasons`` says why."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    @property
    def reason(self) -> str | None:
        """All reasons in one line for the scorecard, or None."""
        by_text: dict[str, list[str]] = {}
        for name, text in self.reasons.items():
            by_text.setdefault(text, []).append(name)
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in by_text.items()) or None

    def take(self, name: str, compute: Callable[[], float]) -> None:
        """Store the value of one measure, or None and the reason."""
        try:
            value = compute()
        except Unmeasurable as error:
            self[name], self.reasons[name] = None, str(error)
            return
        if math.isfinite(value):
            self[name] = float(value)
        else:
            self[name], self.reasons[name] = None, f"the value is {value}"


def measure(evidence: Evidence, metrics: Iterable[Metric]) -> Measures:
    """Return the values of these metrics by name, in their order, without those that do not apply."""
    values = Measures()
    for metric in metrics:
        if metric.is_meant_for(evidence):
            values.take(metric.name, partial(metric, evidence))
    return values
