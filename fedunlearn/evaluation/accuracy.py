"""Accuracy and loss of one model's outputs: overall, per class, per client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedunlearn.evaluation.catalogue import Unmeasurable

if TYPE_CHECKING:
    from fedunlearn.evaluation.outputs import SplitOutputs


def accuracy(split: SplitOutputs) -> float:
    """Share of the examples whose largest logit is the true class's, in percent (0 to 100).

    Raises
    ------
    Unmeasurable
        If there is no example.
    """
    return _percent(split.correct)


def mean_loss(split: SplitOutputs) -> float:
    """Mean cross-entropy in nats. Raises ``Unmeasurable`` if there is no example."""
    if not len(split):
        raise Unmeasurable("there is no example")
    return float(split.losses.mean())


def per_class(split: SplitOutputs) -> list[float | None]:
    """Accuracy in percent on the examples of each class; None for a class without examples."""
    return [_percent_or_none(split.correct[split.label_array == c]) for c in range(split.num_classes)]


def per_client(split: SplitOutputs, clients: Sequence[npt.NDArray[np.int64]]) -> list[float | None]:
    """Accuracy in percent on the examples of each client; None for a client without examples.

    Parameters
    ----------
    split : SplitOutputs
        Outputs on the training split.
    clients : sequence of int arrays
        For each client the indices of its examples in that split.
    """
    return [_percent_or_none(split.correct[indices]) for indices in clients]


def _percent(correct: npt.NDArray[np.bool_]) -> float:
    if not len(correct):
        raise Unmeasurable("there is no example")
    return 100 * int(correct.sum()) / len(correct)


def _percent_or_none(correct: npt.NDArray[np.bool_]) -> float | None:
    return _percent(correct) if len(correct) else None
