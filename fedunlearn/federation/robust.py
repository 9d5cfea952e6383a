"""What a round's updates come to when some of them may be hostile: rules that take the place of the mean.

- trimmed-mean, median: coordinate by coordinate, without the largest and the smallest values. Yin, Chen, Ramchandran,
  Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", arXiv 1803.01498.
- krum, multi-krum: the one update, or the mean of the n − f, whose n − f − 2 nearest others are nearest. Blanchard,
  El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NIPS 2017.

Flower has the same rules (``FedTrimmedAvg``, ``FedMedian``, ``Krum``, ``MultiKrum``), written for the records of its
replies; the tests hold ours against them.

Deviations and choices of ours. f is a share of those who answered, rounded up, and never more than the rule can bear.
The coordinate rules do not weigh by examples, as in the paper: a client gains nothing by claiming many. Of Multi-Krum
the paper leaves open how many are kept. Buffers go the way of the weights; counters take the middle value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.federation.sums import PIECE, BlockSum, Contribution

MEAN = "mean"


@dataclass(frozen=True)
class Aggregation:
    """How the updates of the clients that trained become one step.

    Attributes
    ----------
    rule : str
        "mean", or one of :data:`RULES`.
    hostile_share : float
        Share of a round's answers that the rule is to withstand, in [0, 0.5). "median" withstands nearly half of them
        whatever it says.
    """

    rule: str = MEAN
    hostile_share: float = 0.2

    @property
    def needs_individual(self) -> bool:
        """Whether it takes single updates: all of a round are held in memory until the last has arrived."""
        return self.rule != MEAN

    def sum_of(self, updates: Sequence[Contribution]) -> BlockSum:
        """Return the sum whose mean is the rule's, over the examples of all who answered.

        So every method goes on as with the mean: Σ n_k is that of the mean, and Σ n_k Δ_k / Σ n_k the robust step.
        """
        if not self.needs_individual or not updates:
            return BlockSum.of(updates)
        updates = sorted(updates, key=lambda c: c.client)
        hostile = math.ceil(
            self.hostile_share * len(updates) - 1e-9
        )  # a product of floats may be a bit too large
        delta, buffers = RULES[self.rule](updates, hostile)
        examples = sum(c.num_examples for c in updates)
        return BlockSum.of([Contribution(updates[0].client, examples, delta, buffers)])


Robust = tuple[Tensor, Mapping[str, Tensor]]
"""Update and buffers that a rule makes of all."""


def trimmed_mean(tensors: Sequence[Tensor], cut: int) -> Tensor:
    """Return, coordinate by coordinate, the mean without the ``cut`` largest and ``cut`` smallest values.

    Parameters
    ----------
    tensors
        n of the same shape, floating point; 0 ≤ 2 cut < n.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    found = torch.empty_like(flat[0])
    for at in range(0, len(found), PIECE):  # one piece of each at a time: never a second copy of all
        ordered = torch.stack([vector[at : at + PIECE] for vector in flat]).sort(dim=0).values
        found[at : at + PIECE] = ordered[cut : len(flat) - cut].mean(dim=0)
    return found.reshape(tensors[0].shape)


def distances(vectors: Sequence[Tensor]) -> Tensor:
    """Return ‖v_i − v_j‖² of every pair, shape (n, n), float64."""
    found = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for at in range(0, len(vectors[0]), PIECE):
        piece = torch.stack([vector[at : at + PIECE] for vector in vectors]).double()
        found += torch.cdist(piece, piece, compute_mode="donot_use_mm_for_euclid_dist").square().cpu()
    return found


def most_central(vectors: Sequence[Tensor], hostile: int, keep: int) -> list[int]:
    """Return the places, ascending, of the ``keep`` vectors with the lowest scores of Krum.

    A vector's score is the sum of its squared distances to the n − ``hostile`` − 2 others that are nearest to it, at
    least one. Of equal scores the first counts as lower.
    """
    nearest = max(1, len(vectors) - hostile - 2)
    # The smallest in each row is the vector's distance to itself.
    scores = distances(vectors).sort(dim=1).values[:, 1 : nearest + 1].sum(dim=1)
    return sorted(torch.argsort(scores, stable=True)[:keep].tolist())


def _trimmed(updates: Sequence[Contribution], hostile: int) -> Robust:
    cut = min(hostile, (len(updates) - 1) // 2)
    buffers = {name: _middle([c.buffers[name] for c in updates], cut) for name in updates[0].buffers}
    return trimmed_mean([c.delta for c in updates], cut), buffers


def _median(updates: Sequence[Contribution], hostile: int) -> Robust:
    return _trimmed(updates, len(updates))


def _middle(values: Sequence[Tensor], cut: int) -> Tensor:
    if values[0].is_floating_point():
        return trimmed_mean(values, cut)
    return torch.stack(list(values)).median(dim=0).values  # counters: of two middle values the lower


def _krum(updates: Sequence[Contribution], hostile: int) -> Robust:
    return _selected(updates, hostile, 1)


def _multi_krum(updates: Sequence[Contribution], hostile: int) -> Robust:
    return _selected(updates, hostile, max(1, len(updates) - hostile))


def _selected(updates: Sequence[Contribution], hostile: int, keep: int) -> Robust:
    kept = BlockSum.of([updates[place] for place in most_central([c.delta for c in updates], hostile, keep)])
    return kept.mean(), kept.mean_buffers()


RULES: Mapping[str, Callable[[Sequence[Contribution], int], Robust]] = {
    "trimmed-mean": _trimmed,
    "median": _median,
    "krum": _krum,
    "multi-krum": _multi_krum,
}
"""Every rule but the mean, by the name that experiments use; each takes updates in client order, and f."""
