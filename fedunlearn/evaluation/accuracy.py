"""Quality (accuracy, or Dice of masks) and loss of one model's outputs: overall, per class, per client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedunlearn.evaluation.scored import Floats, Integers, Scored, Unmeasurable

if TYPE_CHECKING:
    from fedunlearn.evaluation.outputs import SplitOutputs


def accuracy(split: SplitOutputs) -> float:
    """Share of the examples whose largest logit is the true class's, in percent (0 to 100).

    Raises
    ------
    Unmeasurable
        If there is no example.
    """
    return quality(split)


def quality(split: Scored) -> float:
    """Mean of what the task calls quality (``scored.QUALITY``), in percent (0 to 100).

    Raises
    ------
    Unmeasurable
        If there is no example.
    """
    return _mean(split.qualities)


def mean_loss(split: Scored) -> float:
    """Mean of the task's loss in nats. Raises ``Unmeasurable`` if there is no example."""
    return _mean(split.losses)


def per_class(split: Scored) -> list[float | None]:
    """Quality in percent on the examples that have each class; None for a class that none has."""
    return [_mean_or_none(values) for values in split.class_qualities()]


def per_client(split: Scored, clients: Sequence[Integers]) -> list[float | None]:
    """Quality in percent on the examples of each client; None for a client without examples.

    Parameters
    ----------
    split : Scored
        Outputs on the training split.
    clients : sequence of int arrays
        For each client the indices of its examples in that split.
    """
    return [_mean_or_none(split.qualities[indices]) for indices in clients]


def _mean(values: Floats) -> float:
    if not len(values):
        raise Unmeasurable("there are no examples")
    return float(values.mean())


def _mean_or_none(values: Floats) -> float | None:
    return _mean(values) if len(values) else None
