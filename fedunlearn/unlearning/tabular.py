"""MPRU's filter after any classifier with ``predict_proba``: trees in forests or boosted, scikit-learn or xgboost.

A model made of trees has no weights to fine-tune and no gradient to go up; what it gives out can be filtered as a
network's. The arithmetic is that of :mod:`fedunlearn.unlearning.redistribution`, on probabilities: where a classifier
is so certain that it gives the others nothing at all, they get equal shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedunlearn.errors import UserError
from fedunlearn.unlearning.mpru import MPRU
from fedunlearn.unlearning.redistribution import (
    LEARNING_STEPS,
    VARIANTS,
    Floats,
    drop,
    nothing_dropped,
    redistribute,
)


class Classifier(Protocol):
    """The part of a fitted scikit-learn classifier that is read."""

    @property
    def classes_(self) -> Any:
        """The K labels, in the order of the columns."""
        ...

    def predict_proba(self, inputs: Any, /) -> Any:
        """Return probabilities, (n, K)."""
        ...


class FilteredClassifier:
    """A classifier, and the redistribution after it; a classifier itself.

    Parameters
    ----------
    classifier
        Stays as it is: it still knows the classes that were dropped.
    transfer : ndarray, shape (K, K)
        See :mod:`fedunlearn.unlearning.redistribution`.
    """

    def __init__(self, classifier: Classifier, transfer: Floats) -> None:
        self.classifier = classifier
        self.transfer = transfer

    @property
    def classes_(self) -> Any:
        """The labels of the columns, dropped ones among them."""
        return self.classifier.classes_

    def predict_proba(self, inputs: Any) -> Floats:
        """Return q, (n, K) in float64: 0 for every dropped class."""
        return redistribute(_probabilities(self.classifier, inputs), self.transfer)

    def predict(self, inputs: Any) -> Any:
        """Return the label with the largest share, never that of a dropped class."""
        q = self.predict_proba(inputs)
        return np.asarray(self.classes_)[q.argmax(axis=1)]


def forget_classes(
    classifier: Classifier,
    classes: Sequence[Any],
    *,
    redistribution: str = "proportional",
    examples: tuple[Any, Any] | None = None,
    steps: int = LEARNING_STEPS,
) -> FilteredClassifier:
    """Put a filter behind a classifier, or further classes into the one that is there.

    Parameters
    ----------
    classifier
        Fitted. The order in which one request follows another does not matter.
    classes
        Labels, as in ``classifier.classes_``.
    redistribution
        A name of :data:`~fedunlearn.unlearning.redistribution.VARIANTS`.
    examples
        Inputs and labels: of the classes to forget for "constant", of the others for "learnt" (a few hundred are
        enough). "proportional" and "uniform" read none.
    steps
        That "learnt" takes.

    Raises
    ------
    UserError
        No such class or redistribution, or examples are missing, of another number of labels or of classes that the
        classifier does not know; or no class would be left; or what the classifier says is no probabilities.
    """
    # It refuses what it does not take.
    MPRU(redistribution=redistribution, steps=steps)  # type: ignore[arg-type]
    known = np.asarray(classifier.classes_).tolist()
    places = [_place(label, known) for label in classes]
    bare, transfer = classifier, nothing_dropped(len(known))
    if isinstance(classifier, FilteredClassifier):
        bare, transfer = classifier.classifier, classifier.transfer
    log_p, labels = np.empty((0, len(known))), np.empty(0, dtype=np.int64)
    if VARIANTS[redistribution].reads != "nothing":
        if examples is None or len(examples[1]) == 0:
            reads = {"forget": "to forget", "retain": "to keep"}[VARIANTS[redistribution].reads]
            raise UserError(
                f'mpru: redistribution = "{redistribution}" needs examples of the classes {reads}'
            )
        inputs, given = examples
        labels = np.array([_place(label, known) for label in np.asarray(given).tolist()], dtype=np.int64)
        with np.errstate(divide="ignore"):  # a tree says 0 where it has seen none
            log_p = np.log(_probabilities(bare, inputs))
        if log_p.shape != (len(labels), len(known)):
            raise UserError(
                f"mpru: {len(labels)} labels and probabilities of shape {log_p.shape} for {len(known)} classes; give "
                "each example its own label"
            )
    rows = VARIANTS[redistribution].rows(log_p, labels, places, transfer, steps)
    return FilteredClassifier(bare, drop(transfer, places, rows))


def _place(label: Any, known: list[Any]) -> int:
    """Return the column of a label."""
    if label not in known:
        raise UserError(f"mpru: there is no class {label!r}; the classifier has {known}")
    return known.index(label)


def _probabilities(classifier: Classifier, inputs: Any) -> Floats:
    found: npt.NDArray[np.float64] = np.asarray(classifier.predict_proba(inputs), dtype=np.float64)
    wrong = ~(np.isfinite(found) & (found >= 0)).all(axis=-1)
    if wrong.any():
        raise UserError(
            f"mpru: the classifier gives example {int(wrong.argmax())} of {len(found)} no probabilities: "
            f"{found[wrong.argmax()].tolist()}; are its inputs finite?"
        )
    return found
