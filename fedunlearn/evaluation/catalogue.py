"""What is measured, in words, and how a measure says that it cannot be taken."""

from typing import NamedTuple


class Unmeasurable(ValueError):  # noqa: N818 - a finding about the data, not a defect
    """The data at hand do not allow this measure; the message is the reason shown beside the null."""


class Measure(NamedTuple):
    """One line of ``fedunlearn list metrics``."""

    unit: str
    description: str
    better: str


_NEARER = "nearer to retrain's"

MEASURES: dict[str, Measure] = {
    "forget_accuracy": Measure("%", "accuracy on the training data to forget", _NEARER),
    "retain_accuracy": Measure("%", "accuracy on the training data to keep", "higher, at least retrain's"),
    "test_accuracy": Measure("%", "accuracy on the test split", "higher, at least retrain's"),
    "validation_accuracy": Measure("%", "accuracy on the validation split", "higher, at least retrain's"),
    "forget_loss": Measure("nats", "mean cross-entropy on the training data to forget", _NEARER),
    "retain_loss": Measure("nats", "mean cross-entropy on the training data to keep", "lower"),
    "test_loss": Measure("nats", "mean cross-entropy on the test split", "lower"),
    "mia_svc": Measure("%", "forgotten data an SVC on true-class probability calls members", _NEARER),
    "mia_svc_matched": Measure("%", "mia_svc, trained on data with the forgotten data's label mix", _NEARER),
    "mia_yeom": Measure("%", "forgotten data with a loss of at most the retained data's mean", _NEARER),
    "mia_yeom_matched": Measure("%", "mia_yeom, the mean taken over the forgotten data's label mix", _NEARER),
    "mia_auc": Measure("%", "AUC x 100, forgotten against unseen data of the same label mix", _NEARER),
    "mia_tpr_at_1_fpr": Measure("%", "forgotten data called members at 1 % false alarms", _NEARER),
    "l2_to_retrain": Measure(
        "weights", "Euclidean distance to retrain's weights", "lower, down to the floor"
    ),
    "cosine_to_retrain": Measure(
        "0 to 2", "1 - cosine of the two weight vectors", "lower, down to the floor"
    ),
    "kl_to_retrain": Measure(
        "nats", "mean KL(retrain || model) on the test split", "lower, down to the floor"
    ),
}
"""Every measure by its name in ``scorecard.json``. Percentages are 0 to 100."""

DISTANCES = ("l2_to_retrain", "cosine_to_retrain", "kl_to_retrain")
"""Measures that are a comparison with retrain by themselves: retrain's own value is 0."""
