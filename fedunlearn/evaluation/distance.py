"""How far one model is from another, in weights and in what it says. All in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedunlearn.evaluation.scored import Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

    from fedunlearn.evaluation.outputs import SplitOutputs


def l2(vector: Tensor, reference: Tensor) -> float:
    """Euclidean distance of two flat weight vectors of one shape."""
    a, b = _pair(vector, reference)
    return float((a - b).norm())


def cosine(vector: Tensor, reference: Tensor) -> float:
    """Cosine distance 1 − cos of two flat weight vectors: 0 one direction, 1 a right angle, 2 opposite.

    Raises
    ------
    Unmeasurable
        If one of them is zero, which has no direction.
    """
    a, b = _pair(vector, reference)
    lengths = float(a.norm()), float(b.norm())
    if 0.0 in lengths:
        raise Unmeasurable("a weight vector is zero and has no direction")
    # Half the squared distance of the unit vectors is the same number without the cancellation of 1 − cos.
    return float((a / lengths[0] - b / lengths[1]).square().sum()) / 2


def mean_kl(split: SplitOutputs, reference: SplitOutputs) -> float:
    """Mean over examples of KL(reference ‖ split), the divergence of the two softmax outputs, in nats.

    Raises
    ------
    ValueError
        If the two are not outputs on the same examples.
    Unmeasurable
        If there is no example.
    """
    if split.logits.shape != reference.logits.shape or not (split.labels == reference.labels).all():
        raise ValueError("KL needs the outputs of two models on the same examples")
    if not len(split):
        raise Unmeasurable("there are no examples")
    probability = np.exp(reference.log_probabilities)
    with np.errstate(invalid="ignore"):
        terms = probability * (reference.log_probabilities - split.log_probabilities)
    # A class the reference rules out adds nothing (0 · log 0 = 0), whatever the other model says of it.
    return float(np.where(probability > 0, terms, 0.0).sum(axis=1).mean())


def _pair(vector: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if vector.shape != reference.shape or vector.ndim != 1:
        raise ValueError(
            f"weights of shapes {tuple(vector.shape)} and {tuple(reference.shape)}: must be two flat vectors "
            "of one length"
        )
    return vector.detach().double().cpu(), reference.detach().double().cpu()
