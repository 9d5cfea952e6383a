"""Several gaps to the retrained model in one number; see ``summary``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedunlearn.evaluation import summary
from fedunlearn.evaluation.metric import Metric, metric
from fedunlearn.evaluation.metrics.attacks import mia_svc
from fedunlearn.evaluation.metrics.quality import BY_TASK, TRIPLET, retain_test_accuracy, whole_classes
from fedunlearn.evaluation.scored import Unmeasurable

if TYPE_CHECKING:
    from fedunlearn.evaluation.evidence import Evidence


@metric(
    "average_gap",
    title="Average Gap",
    unit="%",
    better="lower",
    needs=("outputs", "retrained"),
    retrained_value=0.0,
    show=(),
)
def average_gap(evidence: Evidence) -> float:
    """Mean |gap| of forget, retain, test quality and mia_svc."""
    return summary.average_gap(_gaps(evidence, (*_judged(evidence), mia_svc)))


@metric(
    "tug_of_war",
    title="ToW",
    unit="0 to 1",
    better="higher",
    needs=("outputs", "retrained"),
    retrained_value=1.0,
    show=(),
)
def tug_of_war(evidence: Evidence) -> float:
    """Product of 1 - |gap| of forget, retain, test quality."""
    return summary.tug_of_war(_gaps(evidence, _judged(evidence)))


def _judged(evidence: Evidence) -> tuple[Metric, ...]:
    """Return forget, retain and test quality, the last on the classes that remain where others are forgotten."""
    found = tuple(BY_TASK[evidence.task][on] for on in TRIPLET)
    return (*found[:2], retain_test_accuracy) if whole_classes(evidence) else found


def _gaps(evidence: Evidence, metrics: tuple[Metric, ...]) -> list[float]:
    """Return value − the retrained model's of these metrics."""
    retrained = evidence.retrained
    assert retrained is not None
    found = []
    for each in metrics:
        try:
            mine = each(evidence)
        except Unmeasurable:
            raise Unmeasurable(f"{each.name} was not measured") from None
        theirs = mine if retrained.values is None else retrained.values.get(each.name)
        if theirs is None:
            raise Unmeasurable(f"{each.name} of the retrained model was not measured")
        found.append(mine - theirs)
    return found
