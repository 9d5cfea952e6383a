"""Quality (accuracy, or Dice of masks) and loss on the data to forget, to keep, for testing and for validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np

from fedunlearn.evaluation import accuracy
from fedunlearn.evaluation.declaration import Better, Place
from fedunlearn.evaluation.metric import Metric, metric
from fedunlearn.evaluation.scored import QUALITY, Integers, Scored, Unmeasurable

if TYPE_CHECKING:
    from fedunlearn.evaluation.evidence import Evidence
    from fedunlearn.evaluation.outputs import SplitOutputs

Mean = Callable[[Scored], float]

_NOUNS = {
    "classification": ("accuracy", "Accuracy"),
    "segmentation": ("Dice", "Mean hard Dice, background included,"),
}
_DATA: dict[str, tuple[dict[str, str], Better]] = {
    "forget": ({"": "training data to forget", "segmentation": "slices to forget"}, "retrain"),
    "retain": ({"": "training data to keep", "segmentation": "slices to keep"}, "higher"),
    "test": ({"": "test split"}, "higher"),
    "validation": ({"": "validation split"}, "higher"),
}
TRIPLET = ("forget", "retain", "test")
"""The data on which a model that has forgotten is held against the retrained one."""


def _outputs(evidence: Evidence, on: str) -> Scored:
    if on == "forget":
        return evidence.forgotten
    if on == "retain":
        return evidence.retained
    return evidence.test if on == "test" else evidence.validation


def _mean(mean: Mean, on: str) -> Callable[[Evidence], float]:
    return lambda evidence: mean(_outputs(evidence, on))


def _quality(task: str, on: str) -> Metric:
    word, begin = _NOUNS[task]
    data, better = _DATA[on]
    show: dict[str, tuple[Place, ...]] = {"validation": (), "retain": ("terminal", "markdown", "page")}
    return metric(
        f"{on}_{QUALITY[task]}",
        title=f"{on} {word}",
        unit="%",
        better=better,
        tasks=(task,),
        description=f"{begin} on the {data.get(task, data[''])}",
        heading=on,
        show=show.get(on, ("terminal", "markdown", "page", "plot")),
    )(_mean(accuracy.quality, on))


def whole_classes(evidence: Evidence) -> bool:
    """Whether whole classes are forgotten: of none in F any example is retained, and others remain."""
    if evidence.outputs.train is None or evidence.task != "classification":
        return False
    gone, remaining = _classes(evidence)
    return bool(len(gone) and len(remaining)) and not np.isin(gone, remaining).any()


def _classes(evidence: Evidence) -> tuple[Integers, Integers]:
    """Return the classes of F and of R. One that an earlier request has forgotten is in neither."""
    labels = cast("SplitOutputs", evidence.outputs.train).label_array

    def found() -> tuple[Integers, Integers]:
        return np.unique(labels[evidence.forget]), np.unique(labels[evidence.retain])

    return evidence.once("classes", found)


def _on_classes(evidence: Evidence, classes: Integers) -> float:
    test = cast("SplitOutputs", evidence.test)
    return accuracy.quality(test.take(np.flatnonzero(np.isin(test.label_array, classes))))


BY_TASK: dict[str, dict[str, Metric]] = {"classification": {}, "segmentation": {}}
"""By task and by the data: a model's quality."""
BY_TASK["classification"] |= {on: _quality("classification", on) for on in TRIPLET}


@metric(
    "retain_test_accuracy",
    title="test accuracy, remaining classes",
    unit="%",
    better="higher",
    tasks=("classification",),
    applies=whole_classes,
)
def retain_test_accuracy(evidence: Evidence) -> float:
    """Accuracy on test data of the classes that remain, where whole classes are forgotten."""
    return _on_classes(evidence, _classes(evidence)[1])


@metric(
    "forget_test_accuracy",
    title="test accuracy, forgotten classes",
    unit="%",
    better="retrain",
    tasks=("classification",),
    applies=whole_classes,
)
def forget_test_accuracy(evidence: Evidence) -> float:
    """Accuracy on test data of the forgotten classes, where whole classes are forgotten."""
    return _on_classes(evidence, _classes(evidence)[0])


BY_TASK["classification"]["validation"] = _quality("classification", "validation")
BY_TASK["segmentation"] |= {on: _quality("segmentation", on) for on in (*TRIPLET, "validation")}


def same_sites(evidence: Evidence) -> Integers:
    """Return the test slices from the sites to forget."""
    if evidence.forget_test is None:
        raise Unmeasurable("it is not known which test slices are from the forgotten sites")
    return evidence.forget_test


@metric(
    "forget_test_dice",
    title="forget Dice, test slices",
    unit="%",
    better="retrain",
    tasks=("segmentation",),
    show=("markdown",),
)
def forget_test_dice(evidence: Evidence) -> float:
    """Mean hard Dice on test slices of the sites to forget."""
    return accuracy.quality(evidence.test.take(same_sites(evidence)))


LOSSES = tuple(
    metric(
        f"{on}_loss",
        title=f"{on} loss",
        unit="nats",
        better="retrain" if on == "forget" else "lower",
        description=f"Mean cross-entropy, of masks (+ soft Dice) / 2, on the {_DATA[on][0]['']}",
        show=(),
    )(_mean(accuracy.mean_loss, on))
    for on in TRIPLET
)
