"""Every measure of one model, by name: what goes into a row of the scorecard."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np

from fedunlearn.evaluation import distance, mask_measures, membership, roc
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.catalogue import MEASURES, QUALITY, Measure, Unmeasurable
from fedunlearn.evaluation.scored import Floats, Integers, Scored

if TYPE_CHECKING:
    from torch import Tensor

    from fedunlearn.evaluation.outputs import ModelOutputs, SplitOutputs
    from fedunlearn.evaluation.segmentation import SegmentationOutputs

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
    forget: Integers,
    retain: Integers,
    seed: int,
    mia_samples: int = 10_000,
    forget_test: Integers | None = None,
) -> Measures:
    """Measure one model: quality, loss and membership attacks.

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
    forget_test : int array, optional
        Of segmentation: indices of the test slices that are from the sites to forget. Left out, what needs
        them is null.

    Returns
    -------
    Measures
        The names of ``MEASURES`` that the task has, without the distances to retrain, in that order.
        ``retain_test_accuracy`` and ``forget_test_accuracy`` are there only if whole classes are forgotten: if of
        no class in F any example is retained.

    Raises
    ------
    ValueError
        If an example is both to forget and to retain.
    """
    if np.intersect1d(forget, retain).size:
        raise ValueError("an example is both to forget and to retain")
    masks = outputs.task == "segmentation"

    @cache  # so that what an attack derives from the logits is derived once
    def forgotten() -> Scored:
        return _present(outputs.train, "training").take(forget)

    @cache
    def retained() -> Scored:
        return _present(outputs.train, "training").take(retain)

    def test() -> Scored:
        return _present(outputs.test, "test")

    def validation() -> Scored:
        return _present(outputs.validation, "validation")

    def same_sites() -> Integers:
        if forget_test is None:
            raise Unmeasurable("which test slices are from the forgotten sites is not known")
        return forget_test

    @cache
    def scores() -> tuple[Floats, Floats]:
        if masks:
            return membership.site_scores(forgotten(), test(), same_sites())
        return membership.matched_scores(forgotten(), test(), seed=seed)

    draws = {"seed": seed, "samples": mia_samples}
    name = QUALITY[outputs.task]
    values = Measures()
    values.take(f"forget_{name}", lambda: quality(forgotten()))
    values.take(f"retain_{name}", lambda: quality(retained()))
    values.take(f"test_{name}", lambda: quality(test()))
    if outputs.train is not None and not masks:
        labels = cast("SplitOutputs", outputs.train).label_array
        values |= _by_classes(outputs, labels[forget], labels[retain], values.reasons)
    values.take(f"validation_{name}", lambda: quality(validation()))
    if masks:
        values.take("forget_test_dice", lambda: quality(test().take(same_sites())))
    values.take("forget_loss", lambda: mean_loss(forgotten()))
    values.take("retain_loss", lambda: mean_loss(retained()))
    values.take("test_loss", lambda: mean_loss(test()))
    if masks:
        values.take("forget_hausdorff", lambda: mask_measures.mean_distance(_masks(forgotten())))
        values.take("test_hausdorff", lambda: mask_measures.mean_distance(_masks(test())))
        values.take("test_missed", lambda: mask_measures.missed(_masks(test())))
    values.take("mia_svc", lambda: membership.mia_svc(forgotten(), retained(), test(), **draws))
    values.take(
        "mia_svc_matched", lambda: membership.mia_svc_matched(forgotten(), retained(), test(), **draws)
    )
    values.take("mia_yeom", lambda: membership.mia_yeom(forgotten(), retained()))
    values.take("mia_yeom_matched", lambda: membership.mia_yeom_matched(forgotten(), retained()))
    values.take("mia_auc", lambda: 100 * roc.auc(*scores()))
    values.take("mia_tpr_at_1_fpr", lambda: roc.tpr_at_fpr(*scores(), percent=1))
    return values


def _by_classes(
    outputs: ModelOutputs, forget: Integers, retain: Integers, reasons: dict[str, str]
) -> dict[str, float | None]:
    """Return test accuracy on the classes that remain and on those forgotten; nothing where F is not whole classes.

    ``forget`` and ``retain`` are the labels of F and R. A class that is in neither, which an earlier request has
    forgotten, counts for neither.
    """
    found = Measures()
    gone, remaining = np.unique(forget), np.unique(retain)
    if not len(gone) or not len(remaining) or np.isin(gone, remaining).any():
        return found

    def of(classes: Integers) -> float:
        test = cast("SplitOutputs", _present(outputs.test, "test"))
        return quality(test.take(np.flatnonzero(np.isin(test.label_array, classes))))

    found.take("retain_test_accuracy", lambda: of(remaining))
    found.take("forget_test_accuracy", lambda: of(gone))
    reasons |= found.reasons
    return found


def to_retrain(
    outputs: ModelOutputs,
    retrain_outputs: ModelOutputs,
    vector: Tensor,
    retrain_vector: Tensor,
    *,
    pixel_kl: Callable[[], float] | None = None,
) -> Measures:
    """Measure how far a model is from the retrained one: the names in ``catalogue.DISTANCES``.

    Parameters
    ----------
    outputs, retrain_outputs : ModelOutputs
        Of the two models on the same data; the test split is compared.
    vector, retrain_vector : Tensor, shape (parameters,)
        The two models' flat weights.
    pixel_kl : callable, optional
        Of segmentation: runs both models again and returns the mean KL over the pixels of the test split, as
        ``segmentation.mean_pixel_kl`` does, for no outputs keep them. Left out, ``kl_to_retrain`` is null.
    """

    def kl() -> float:
        mine, theirs = _present(outputs.test, "test"), _present(retrain_outputs.test, "test")
        if outputs.task != "segmentation":
            return distance.mean_kl(cast("SplitOutputs", mine), cast("SplitOutputs", theirs))
        if pixel_kl is None:
            raise Unmeasurable("the pixels of the two models, which it compares, are not kept")
        return pixel_kl()

    values = Measures()
    values.take("l2_to_retrain", lambda: distance.l2(vector, retrain_vector))
    values.take("cosine_to_retrain", lambda: distance.cosine(vector, retrain_vector))
    values.take("kl_to_retrain", kl)
    return values


def _present(split: Scored | None, name: str) -> Scored:
    if split is None:
        raise Unmeasurable(f"there is no {name} data")
    return split


def _masks(split: Scored) -> SegmentationOutputs:
    return cast("SegmentationOutputs", split)  # the task said so
