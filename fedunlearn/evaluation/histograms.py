"""What a node tells of its data in a live federation: counts, sums and a histogram, never one example's values.

A :class:`Tally` is what leaves the node; everything that is measured of data nobody else may see (quality, loss, how
well the forgotten data can be told from unseen ones) is read from tallies, which can be added over nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedunlearn.evaluation.measures import Measures
from fedunlearn.evaluation.scored import QUALITY, Scored, Unmeasurable

BINS = 20
"""Equal bins of the probability of what is true: a confidence c falls into bin ⌊20 c⌋, and 1 into the last."""
FEWEST = 5
"""Of fewer examples nothing is told: their sums would say too much about each."""

_ROUNDING = 1e-6  # by which a sum of so many percentages may exceed its bound, relatively


@dataclass(frozen=True)
class Tally:
    """What a model makes of a set of examples, without a word of any single one.

    Attributes
    ----------
    num_examples : int
    quality_sum : float
        Sum of the examples' qualities in percent: of a classifier 100 × the number it gets right, of masks the
        sum of the slices' Dice.
    loss_sum : float
        Sum of the examples' losses in nats.
    confidences : tuple[int, ...], BINS long
        How many examples have their confidence (``Scored.confidences``) in each bin.

    Raises
    ------
    ValueError
        If the numbers cannot be those of any set of examples; tallies come from elsewhere.
    """

    num_examples: int
    quality_sum: float
    loss_sum: float
    confidences: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = (self.num_examples, *self.confidences)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"counts {counts}: must be whole numbers ≥ 0")
        if len(self.confidences) != BINS or sum(self.confidences) != self.num_examples:
            raise ValueError(
                f"a histogram of {len(self.confidences)} bins and {sum(self.confidences)} examples: "
                f"must have {BINS} bins and {self.num_examples} examples"
            )
        most = 100 * self.num_examples * (1 + _ROUNDING)
        if not 0 <= self.quality_sum <= most:
            raise ValueError(f"sum of qualities {self.quality_sum}: must be between 0 and {most:g}")
        if not (math.isfinite(self.loss_sum) and self.loss_sum >= 0):
            raise ValueError(f"sum of losses {self.loss_sum}: must be finite and ≥ 0")

    @property
    def quality(self) -> float:
        """Mean quality in percent. Raises ``Unmeasurable`` if there is no example."""
        return self.quality_sum / self._some()

    @property
    def loss(self) -> float:
        """Mean loss in nats. Raises ``Unmeasurable`` if there is no example."""
        return self.loss_sum / self._some()

    def _some(self) -> int:
        if not self.num_examples:
            raise Unmeasurable("there are no examples")
        return self.num_examples


@dataclass(frozen=True)
class Withheld:
    """Why there is no tally."""

    reason: str


TOO_FEW = Withheld(f"fewer than {FEWEST} examples")


def tally_of(outputs: Scored) -> Tally | Withheld:
    """Count and sum a model's outputs.

    Withheld where there are fewer than :data:`FEWEST` examples, or the outputs are not numbers.
    """
    if len(outputs) < FEWEST:
        return TOO_FEW
    try:
        # A mean over pixels can come out a last bit above 1, and falls into the last bin all the same.
        bins = np.minimum((outputs.confidences * BINS).astype(np.int64), BINS - 1)
        return Tally(
            num_examples=len(outputs),
            quality_sum=math.fsum(outputs.qualities),
            loss_sum=math.fsum(outputs.losses),
            confidences=tuple(np.bincount(bins, minlength=BINS).tolist()),
        )
    except Unmeasurable as error:
        return Withheld(str(error))


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the tally of all examples together: to the last bit the same, in whatever order they are given."""
    tallies = tuple(tallies)
    return Tally(
        num_examples=sum(t.num_examples for t in tallies),
        quality_sum=math.fsum(t.quality_sum for t in tallies),
        loss_sum=math.fsum(t.loss_sum for t in tallies),
        confidences=tuple(map(sum, zip(*(t.confidences for t in tallies), strict=True))) or (0,) * BINS,
    )


def membership_auc(forget: Tally, held_out: Tally) -> float:
    """Percent of pairs in which a forgotten example has the higher confidence than an unseen one.

    A pair in one bin counts one half: this is ``100 × roc.auc`` of the scores after they have been rounded to their
    bins. Between bins nothing is lost, within one everything: a model that is sure of nearly all it sees has
    most examples in the last bin, and the value is then nearer to 50 than the one of single examples. There is no
    matching of labels either, so that another mix of classes shows too.

    Raises
    ------
    Unmeasurable
        If one of the two has no example.
    """
    if not forget.num_examples or not held_out.num_examples:
        raise Unmeasurable("there are no forgotten or no unseen examples to compare")
    won_twice, below = 0, 0  # whole numbers, so that the value is exact
    for members, others in zip(forget.confidences, held_out.confidences, strict=True):
        won_twice += members * (2 * below + others)
        below += others
    return 100 * won_twice / (2 * forget.num_examples * held_out.num_examples)


def forget_measures(task: str, told: Tally | Withheld, held_out: Tally | Withheld) -> Measures:
    """Return what the forgotten client's tally says of a model: null with a reason what it does not say.

    Parameters
    ----------
    task
        "classification" or "segmentation".
    told
        Of the forgotten client's data.
    held_out
        Of data that no client trained on, by the same model.

    Returns
    -------
    Measures
        ``forget_accuracy`` or ``forget_dice`` (percent), ``forget_loss`` (nats), ``mia_auc_binned`` (percent, see
        :func:`membership_auc`).
    """

    def own() -> Tally:
        return _present(told)

    values = Measures()
    values.take(f"forget_{QUALITY[task]}", lambda: own().quality)
    values.take("forget_loss", lambda: own().loss)
    values.take("mia_auc_binned", lambda: membership_auc(own(), _present(held_out)))
    return values


def _present(told: Tally | Withheld) -> Tally:
    if isinstance(told, Withheld):
        raise Unmeasurable(told.reason)
    return told
