"""What is measured, in words, and how a measure says that it cannot be taken."""

from collections.abc import Mapping
from typing import NamedTuple


class Unmeasurable(ValueError):  # noqa: N818 - a finding about the data, not a defect
    """The data at hand do not allow this measure; the message is the reason shown beside the null."""


class Measure(NamedTuple):
    """One line of ``fedunlearn list metrics``."""

    unit: str
    description: str
    better: str


QUALITY: Mapping[str, str] = {"classification": "accuracy", "segmentation": "dice"}
"""By task, what it calls the quality of a model, in percent: recovery is judged by it, it is measured as
``forget_<quality>`` and the like, and logged round by round as ``<split>-<quality>``."""

_NEARER = "nearer to retrain's"
_AT_LEAST = "higher, at least retrain's"
_LOSS = "mean cross-entropy, of masks (+ soft Dice) / 2,"

MEASURES: dict[str, Measure] = {
    "forget_accuracy": Measure("%", "accuracy on the training data to forget", _NEARER),
    "retain_accuracy": Measure("%", "accuracy on the training data to keep", _AT_LEAST),
    "test_accuracy": Measure("%", "accuracy on the test split", _AT_LEAST),
    "retain_test_accuracy": Measure(
        "%", "accuracy on test data of the classes that remain, where whole classes are forgotten", _AT_LEAST
    ),
    "forget_test_accuracy": Measure(
        "%", "accuracy on test data of the forgotten classes, where whole classes are forgotten", _NEARER
    ),
    "validation_accuracy": Measure("%", "accuracy on the validation split", _AT_LEAST),
    "forget_dice": Measure("%", "mean hard Dice, background included, on the slices to forget", _NEARER),
    "retain_dice": Measure("%", "mean hard Dice, background included, on the slices to keep", _AT_LEAST),
    "test_dice": Measure("%", "mean hard Dice, background included, on the test split", _AT_LEAST),
    "validation_dice": Measure("%", "mean hard Dice, background included, on validation slices", _AT_LEAST),
    "forget_test_dice": Measure("%", "mean hard Dice on test slices of the sites to forget", _NEARER),
    "forget_loss": Measure("nats", f"{_LOSS} on the training data to forget", _NEARER),
    "retain_loss": Measure("nats", f"{_LOSS} on the training data to keep", "lower"),
    "test_loss": Measure("nats", f"{_LOSS} on the test split", "lower"),
    "forget_hausdorff": Measure("mm", "95 % Hausdorff distance of masks, on slices to forget", _NEARER),
    "test_hausdorff": Measure("mm", "95 % Hausdorff distance of masks, on the test split", "lower"),
    "test_missed": Measure("%", "test slices without any predicted mask; no distance sees them", "lower"),
    "mia_svc": Measure("%", "forgotten data an SVC on true-class probability calls members", _NEARER),
    "mia_svc_matched": Measure("%", "mia_svc, trained on data with the forgotten data's label mix", _NEARER),
    "mia_yeom": Measure("%", "forgotten data with a loss of at most the retained data's mean", _NEARER),
    "mia_yeom_matched": Measure("%", "mia_yeom, the mean taken over the forgotten data's label mix", _NEARER),
    "mia_auc": Measure("%", "AUC x 100, forgotten against unseen data of the same labels or sites", _NEARER),
    "mia_tpr_at_1_fpr": Measure("%", "forgotten data called members at 1 % false alarms", _NEARER),
    "average_gap": Measure(
        "%", "mean |gap| of forget, retain, test quality and mia_svc", "lower, down to the floor"
    ),
    "tug_of_war": Measure(
        "0 to 1", "product of 1 - |gap| of forget, retain, test quality", "higher, up to 1"
    ),
    "l2_to_retrain": Measure(
        "weights", "Euclidean distance to retrain's weights", "lower, down to the floor"
    ),
    "cosine_to_retrain": Measure(
        "0 to 2",
        "cosine distance to retrain: 1 - cosine of the two weight vectors",
        "lower, down to the floor",
    ),
    "kl_to_retrain": Measure(
        "nats", "mean KL(retrain || model) on the test split, of masks per pixel", "lower, down to the floor"
    ),
}
"""Every measure by its name in ``scorecard.json``. Percentages are 0 to 100. A task has those of its
quality; the Hausdorff distances, ``test_missed`` and ``forget_test_dice`` belong to segmentation, and accuracy by
classes is measured only where F is whole classes."""

DISTANCES = ("l2_to_retrain", "cosine_to_retrain", "kl_to_retrain")
"""Measures that are a comparison with retrain by themselves: retrain's own value is 0."""
