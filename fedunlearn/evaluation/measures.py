"""Every measure of one model, by name: what goes into a row of the scorecard."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedunlearn.evaluation import accuracy, distance, membership, roc
from fedunlearn.evaluation.catalogue import MEASURES, Measure, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

    from fedunlearn.evaluation.outputs import ModelOutputs, SplitOutputs

__all__ = ["MEASURES", "Measure", "Measures", "measure", "to_retrain"]


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


def measure(
    outputs: ModelOutputs,
    *,
    forget: npt.NDArray[np.int64],
    retain: npt.NDArray[np.int64],
    seed: int,
    mia_samples: int = 10_000,
) -> Measures:
    """Measure one model: accuracy, loss and membership attacks.

    Parameters
    ----------
    outputs : ModelOutputs
        From ``collect``; a split that is missing makes null what needs it.
    forget, retain : int arrays
        Indices into the training split; they share no example. Together they need not cover it.
    seed : int
        The experiment's; the attacks' draws depend on it and on the labels alone.
    mia_samples : int
        At most this many members, and as many non-members, train the SVC attacks.

    Returns
    -------
    Measures
        Exactly the names of ``MEASURES`` without the distances to retrain, in that order.

    Raises
    ------
    ValueError
        If an example is both to forget and to retain.
    """
    if np.intersect1d(forget, retain).size:
        raise ValueError("an example is both to forget and to retain")

    @cache  # so that what an attack derives from the logits is derived once
    def forgotten() -> SplitOutputs:
        return _present(outputs.train, "training").take(forget)

    @cache
    def retained() -> SplitOutputs:
        return _present(outputs.train, "training").take(retain)

    def test() -> SplitOutputs:
        return _present(outputs.test, "test")

    def validation() -> SplitOutputs:
        return _present(outputs.validation, "validation")

    @cache
    def scores() -> tuple[membership.Floats, membership.Floats]:
        return membership.matched_scores(forgotten(), test(), seed=seed)

    draws = {"seed": seed, "samples": mia_samples}
    values = Measures()
    values.take("forget_accuracy", lambda: accuracy.accuracy(forgotten()))
    values.take("retain_accuracy", lambda: accuracy.accuracy(retained()))
    values.take("test_accuracy", lambda: accuracy.accuracy(test()))
    values.take("validation_accuracy", lambda: accuracy.accuracy(validation()))
    values.take("forget_loss", lambda: accuracy.mean_loss(forgotten()))
    values.take("retain_loss", lambda: accuracy.mean_loss(retained()))
    values.take("test_loss", lambda: accuracy.mean_loss(test()))
    values.take("mia_svc", lambda: membership.mia_svc(forgotten(), retained(), test(), **draws))
    values.take(
        "mia_svc_matched", lambda: membership.mia_svc_matched(forgotten(), retained(), test(), **draws)
    )
    values.take("mia_yeom", lambda: membership.mia_yeom(forgotten(), retained()))
    values.take("mia_yeom_matched", lambda: membership.mia_yeom_matched(forgotten(), retained()))
    values.take("mia_auc", lambda: 100 * roc.auc(*scores()))
    values.take("mia_tpr_at_1_fpr", lambda: roc.tpr_at_fpr(*scores(), percent=1))
    return values


def to_retrain(
    outputs: ModelOutputs, retrain_outputs: ModelOutputs, vector: Tensor, retrain_vector: Tensor
) -> Measures:
    """Measure how far a model is from the retrained one: the names in ``catalogue.DISTANCES``.

    Parameters
    ----------
    outputs, retrain_outputs : ModelOutputs
        Of the two models on the same data; the test split is compared.
    vector, retrain_vector : Tensor, shape (parameters,)
        The two models' flat weights.
    """
    values = Measures()
    values.take("l2_to_retrain", lambda: distance.l2(vector, retrain_vector))
    values.take("cosine_to_retrain", lambda: distance.cosine(vector, retrain_vector))
    values.take(
        "kl_to_retrain",
        lambda: distance.mean_kl(_present(outputs.test, "test"), _present(retrain_outputs.test, "test")),
    )
    return values


def _present(split: SplitOutputs | None, name: str) -> SplitOutputs:
    if split is None:
        raise Unmeasurable(f"there is no {name} data")
    return split
