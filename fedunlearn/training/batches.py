"""Which rows each model of a stack sees at each of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """One step of those models of a stack that have one left, the first of them in the stack's order.

    Attributes
    ----------
    rows : Tensor
        int64, (models, width): rows of the data. A shorter batch is filled up with its last row.
    sizes : Tensor
        (models,): how many of them count.
    share : Tensor or None
        (models, width): 1 / size, 0 where filled up. None: all batches are equally long.
    places : Tensor
        int64, (models, width): each row's place in the sequence of all rows that a model sees in all its epochs,
        those of model after model in the order given. Of no meaning where ``Batches.whole``.
    """

    rows: Tensor
    sizes: Tensor
    share: Tensor | None
    places: Tensor


class Batches:
    """The batches of a stack: per model those of :func:`train_local`, laid side by side step by step.

    The data of all models lie in one tensor, model by model. In every epoch a model sees its own in the order
    ``torch.randperm(n, generator=…)``. Whose rows fit into one batch needs no order, unless ``ordered``: nothing
    is drawn.

    Models are ranked by their number of rows, most first, so that at every step those that still have one are
    the first of the stack, and nothing is computed for the others.

    Parameters
    ----------
    counts
        Rows per model.
    batch_size, epochs
        As in ``TrainConfig``.
    generators
        One per model; taken from the iterable one after the other, each used up before the next is taken.
    rows : Tensor of int64, or None
        Where in the data each model's rows are, model by model; None: there they lie model by model themselves.
    ordered
        Whether a row's place within its batch matters, as it does where each place has draws of its own.

    Attributes
    ----------
    ranking : Tensor or None
        The model at each rank; None where that is the order given.
    whole : bool
        Whether every model sees all its rows in one batch: there is one batch, and nothing is drawn for it.
    """

    def __init__(
        self,
        counts: Sequence[int],
        batch_size: int,
        epochs: int,
        generators: Iterable[torch.Generator],
        rows: Tensor | None = None,
        *,
        ordered: bool = False,
    ) -> None:
        self._batch_size = batch_size
        self._counts = np.array(counts)
        if not self._counts.all():
            raise ValueError(f"model {counts.index(0)} of the stack has no rows to train on; leave it out")
        self._first = np.cumsum(self._counts) - self._counts
        self._epoch = 0  # from one epoch of a model to its next, over its rows: 0 where all are alike
        self._rows = rows
        self.whole = max(counts) <= batch_size and not ordered
        if not self.whole:
            orders = _orders(counts, 0 if ordered else batch_size, epochs, generators)
            places = torch.cat(orders).add_(torch.from_numpy(np.repeat(self._first, self._counts * epochs)))
            self._rows = places if rows is None else rows.index_select(0, places)
            self._first, self._epoch = self._first * epochs, 1
        self._per_epoch = -(-self._counts // batch_size)
        self._epochs = epochs
        self.ranking: Tensor | None = None
        if (np.diff(self._counts) > 0).any():
            ranking = np.argsort(-self._counts, kind="stable")
            self._counts, self._first = self._counts[ranking], self._first[ranking]
            self._per_epoch = self._per_epoch[ranking]
            self.ranking = torch.from_numpy(ranking)

    def windows(self, size: int) -> Iterator[tuple[int, int]]:
        """Cut the ranks into stacks of at most ``size`` models, as even as can be."""
        num = len(self._counts)
        parts = -(-num // size)
        return pairwise(round(i * num / parts) for i in range(parts + 1))

    def steps(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the steps of the models with these ranks, until all of them are done."""
        counts, begin, per_epoch = (x[first:last] for x in (self._counts, self._first, self._per_epoch))
        ends = -per_epoch * self._epochs
        for t in range(-int(ends[0])):
            left = int(np.searchsorted(ends, -t))  # those with more than t steps
            n, s = counts[:left], per_epoch[:left]
            at = (t % s) * self._batch_size
            sizes = np.minimum(n - at, self._batch_size)
            at += begin[:left] + self._epoch * (t // s) * n
            width = int(sizes.max())
            place = np.arange(width)
            share = None
            if sizes.min() == width:
                where = at[:, None] + place
            else:
                where = at[:, None] + np.minimum(place, sizes[:, None] - 1)
                share = torch.from_numpy((place < sizes[:, None]) / sizes[:, None])
            rows = places = torch.from_numpy(where)
            if self._rows is not None:
                rows = self._rows.index_select(0, places.view(-1)).view(left, width)
            yield Batch(rows, torch.from_numpy(sizes), share, places)


def _orders(
    counts: Sequence[int], few: int, epochs: int, generators: Iterable[torch.Generator]
) -> list[Tensor]:
    """Return per model the orders of all its epochs, one after the other; up to ``few`` rows stay as they lie."""
    orders = []
    for n, generator in zip(counts, generators, strict=True):
        if n <= few:
            orders.append(torch.arange(n).repeat(epochs))
        elif epochs == 1:
            orders.append(torch.randperm(n, generator=generator))
        else:
            orders.append(torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)]))
    return orders
