"""What becomes of a class's probability when the class is dropped: the arithmetic of MPRU, on any model's outputs.

A *transfer* is a (K, K) matrix M that says where what each class has goes. Row j of a class that stays is the unit
vector; row f of one that was dropped holds its shares R_f of the others, and nothing for a class that was dropped.
What a row falls short of 1 is shared out in proportion to what the others have, so that a row of zeros is the softmax
without the class. Then

    q ∝ p M,    Σ q = 1,    q_f = 0.

Classes are dropped one after the other, and what lands on one that is gone moves on by that one's row: to whom it
goes in the end is where a Markov chain that starts at f leaves the dropped classes, which does not depend on their
order. NumPy alone, so that a tree model's probabilities go through the same function as a network's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedunlearn.errors import UserError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Probabilities = TypeVar("Probabilities", Floats, Tensor)

LEARNING_STEPS = 1
"""Of :func:`learnt`, by default."""
CLOSED = 1e-12
"""A class that keeps all but this share of what it has, by way of other dropped classes, cannot be dropped."""


def nothing_dropped(num_classes: int) -> Floats:
    """Return the transfer with which every class keeps what it has."""
    return np.eye(num_classes)


def drop(transfer: Floats, classes: Sequence[int], rows: Floats) -> Floats:
    """Return the transfer with further classes dropped.

    Parameters
    ----------
    transfer : ndarray, shape (K, K)
    classes : sequence of int
        One that is gone already stays as it went.
    rows : ndarray, shape (len(classes), K)
        R_f of each: not negative, adding up to 1, or to less (see above). Shares of dropped classes move on.

    Raises
    ------
    UserError
        No class would be left; or some of them hand on all they have to each other alone.
    """
    found = transfer.copy()
    for f, shares in zip(classes, rows, strict=True):
        if found[f, f] == 0:
            continue
        row = shares @ found
        returning = row[f]
        row[f] = 0.0
        if (found.diagonal() > 0).sum() == 1:
            raise UserError(f"mpru: without class {f} no class is left; keep at least one")
        if returning > 1 - CLOSED:
            raise UserError(
                f"mpru: class {f} passes everything to classes that pass it back; its row must reach one that stays"
            )
        found += np.outer(found[:, f], row / (1 - returning))
        found[:, f] = 0.0
    return found


def merged(transfers: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return the transfer that drops every class that any of several drops; their mean would drop none of these.

    A class gets the weighted mean of the rows of those who dropped it, and what lands on a class that another one
    dropped moves on. Where such rows hand all they have to each other alone, that is shared out in proportion.

    Parameters
    ----------
    transfers : sequence of ndarray, shape (K, K)
        At least one.
    weights : sequence of float
        Of each, above 0.

    Raises
    ------
    UserError
        No class would be left.
    """
    stacked, shares = np.stack(transfers), np.asarray(weights, dtype=np.float64)
    start, drops = nothing_dropped(stacked.shape[1]), np.diagonal(stacked, axis1=1, axis2=2) == 0
    classes = drops.any(axis=0).nonzero()[0].tolist()
    rows = np.array(
        [np.average(stacked[drops[:, f], f], axis=0, weights=shares[drops[:, f]]) for f in classes]
    )
    try:
        return drop(start, classes, rows)
    except UserError:
        rows[:, classes] = 0.0
        return drop(start, classes, rows)


def redistribute(probabilities: Probabilities, transfer: Probabilities) -> Probabilities:
    """Return q of probabilities p, (n, K), both NumPy arrays or both tensors of one type and device.

    Where p has nothing but for dropped classes and no row says where it should go, the classes that stay get equal
    shares: nothing is known of them. With logits at hand :class:`fedunlearn.unlearning.mpru.Redistribution` knows
    more.
    """
    found: Probabilities = probabilities @ transfer
    unknown = found.sum(-1) <= 0
    found = found + unknown[..., None] * (transfer.diagonal() > 0)
    total: Probabilities = found.sum(-1)
    normalised: Probabilities = found / total[..., None]
    return normalised


# -- R --------------------------------------------------------------------------------------------------------


def proportional(
    log_p: Floats, labels: Labels, classes: Sequence[int], transfer: Floats, steps: int = LEARNING_STEPS
) -> Floats:
    """Return rows of zeros: the others share in proportion to what they have, as if the softmax left f out."""
    return np.zeros((len(classes), len(transfer)))


def uniform(
    log_p: Floats, labels: Labels, classes: Sequence[int], transfer: Floats, steps: int = LEARNING_STEPS
) -> Floats:
    """Return rows with equal shares for all other classes."""
    rows = np.full((len(classes), len(transfer)), 1 / max(len(transfer) - 1, 1))
    rows[np.arange(len(classes)), list(classes)] = 0.0
    return rows


def constant(
    log_p: Floats, labels: Labels, classes: Sequence[int], transfer: Floats, steps: int = LEARNING_STEPS
) -> Floats:
    """Return for each class the mean output of its own examples, each made to add up to 1 without the class."""
    # Uniform for a class whose examples leave the others nothing.
    rows = uniform(log_p, labels, classes, transfer)
    for row, f in zip(rows, classes, strict=True):
        others = log_p[labels == f].copy()
        others[:, f] = -np.inf
        largest = others.max(axis=1, keepdims=True, initial=-np.inf)
        powers = np.exp(others - np.where(np.isfinite(largest), largest, 0.0))
        known = powers.sum(axis=1) > 0
        if known.any():
            row[:] = (powers[known] / powers[known].sum(axis=1, keepdims=True)).mean(axis=0)
    return rows


def learnt(
    log_p: Floats, labels: Labels, classes: Sequence[int], transfer: Floats, steps: int = LEARNING_STEPS
) -> Floats:
    """Return rows that make examples of the other classes more likely than uniform ones do.

    They go down −mean log(p_y + Σ_f p_f R_fy) over stochastic rows on the classes that stay: cross-entropy after
    redistribution. That is convex, a mixture whose weights are known, and every of the ``steps`` of
    expectation–maximisation from uniform rows makes it smaller. The first gives R_fj ∝ Σ p_f / (p_j + p_f / (K − 1))
    over examples of class j: by how much those of j are taken for f. Many go to the least cross-entropy, which is
    rarely wanted: where a model is sure of its retained examples that is nearly linear in R, and least where a row is
    a single class. A row that no example speaks of stays uniform.
    """
    stay = transfer.diagonal() > 0
    stay[list(classes)] = False
    told = stay[labels]
    p, labels = redistribute(np.exp(log_p[told]), transfer), labels[told]
    rows = np.tile(stay / max(stay.sum(), 1), (len(classes), 1))
    own, mass = p[np.arange(len(p)), labels], p[:, list(classes)]
    for _ in range(steps):
        parts = mass * rows[:, labels].T
        parts /= np.maximum(own + parts.sum(axis=1), np.finfo(np.float64).tiny)[:, None]
        counts = np.stack([np.bincount(labels, part, minlength=len(stay)) for part in parts.T])
        totals = counts.sum(axis=1, keepdims=True)
        rows = np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), rows)
    return rows


@dataclass(frozen=True)
class Variant:
    """A way to choose R.

    Attributes
    ----------
    rows : callable
        (log-probabilities (n, K) of examples, their labels, classes to drop, the transfer so far, learning steps)
        → (classes, K).
    reads : str
        Which examples those are: none, those of the classes to drop, or of the others.
    """

    rows: Callable[[Floats, Labels, Sequence[int], Floats, int], Floats]
    reads: Literal["nothing", "forget", "retain"]


VARIANTS: Mapping[str, Variant] = {
    "proportional": Variant(proportional, "nothing"),
    "uniform": Variant(uniform, "nothing"),
    "constant": Variant(constant, "forget"),
    "learnt": Variant(learnt, "retain"),
}
"""By the name in ``redistribution = "…"``."""
