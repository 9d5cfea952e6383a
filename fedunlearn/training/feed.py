"""What a stack of models is fed: batches of images and labels, gathered for all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.data.augmentation import Augmentation
from fedunlearn.training.batches import Batch, Batches
from fedunlearn.training.stack_augmentation import StackAugmentation, shape_fed

KEPT_BYTES = 8 << 20
"""What never changes is kept for the next round if a stack's images take no more than this."""


class Step(NamedTuple):
    """One step of those models of a stack that have one left.

    Attributes
    ----------
    images : Tensor
        (width, models, channels, height, width): short batches are filled up.
    labels : Tensor
        int64, (models, width).
    sizes : Tensor
        (models,): how many rows of each batch count.
    share : Tensor or None
        (models, width): 1 / size, 0 where filled up. None: all batches are equally long.
    """

    images: Tensor
    labels: Tensor
    sizes: Tensor
    share: Tensor | None


class Feed:
    """The data of a stack of models, and the order in which each sees its own.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
        The data of all, model by model.
    labels : Tensor of int64, shape (n,)
    counts
        How many rows each model has, one or more.
    settings
        Batch size and epochs count.
    generators
        Each model's own, on the processor, for the order of its batches; an iterable may yield the same
        object seeded anew. Not drawn from where all rows fit into one batch, whose order does not matter,
        unless there is an augmentation: then it does.
    rows : Tensor of int64 on the processor, or None
        If given, ``images[rows]`` are the data of all, model by model. Models may share rows.
    augmentation
        Changes every batch anew, by what is drawn beside each model's own generator; None: nothing is changed.

    Attributes
    ----------
    image_shape : tuple of int
        Of an image as it is fed, (channels, height, width).
    stays : bool
        Whether all batches are the same whenever they are drawn, and small enough to be kept.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        counts: Sequence[int],
        settings: TrainConfig,
        generators: Iterable[torch.Generator],
        rows: Tensor | None = None,
        *,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.counts = list(counts)
        self.epochs = settings.local_epochs
        self._augmentation: StackAugmentation | None = None
        if augmentation is not None:
            self._augmentation = StackAugmentation(augmentation, self.counts, settings)
            generators = self._augmentation.beside(generators)
        self.batches = Batches(
            self.counts,
            settings.batch_size,
            self.epochs,
            generators,
            rows,
            ordered=augmentation is not None,
        )
        self.image_shape = shape_fed(images, labels, augmentation)
        self._images, self._labels = images, labels
        self._kept: dict[tuple[int, int], Step] = {}
        self.stays = self.batches.whole and images[0].nbytes * sum(self.counts) <= KEPT_BYTES

    def steps(self, first: int, last: int) -> Iterator[Step]:
        """Yield the steps of the models with these ranks, until all of them are done."""
        if not self.stays:
            for batch in self.batches.steps(first, last):
                yield self._gathered(batch)
            return
        if (first, last) not in self._kept:
            self._kept[first, last] = self._gathered(next(self.batches.steps(first, last)))
        for _ in range(self.epochs):
            yield self._kept[first, last]

    def _gathered(self, batch: Batch) -> Step:
        rows = batch.rows.to(self._images.device)
        models, width = rows.shape
        by_place = rows.t().reshape(-1)  # the models' first samples, then their second ones, …
        images = self._images.index_select(0, by_place)
        if self._augmentation is None:
            labels = self._labels.index_select(0, rows.view(-1)).view(models, width)
        else:
            labels = self._labels.index_select(0, by_place)
            images, labels = self._augmentation.apply(images, labels, batch.places.t().reshape(-1))
            labels = labels.view(width, models).t().contiguous()
        images = images.view(width, models, *self.image_shape)
        share = None if batch.share is None else batch.share.to(images)
        return Step(images, labels, batch.sizes.to(images), share)


class Feeds:
    """The feeds of those stacks of clients that came last, for when they come again.

    Only where each client's data are one batch: nothing about its feed then changes from round to round.
    """

    KEPT = 16

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[list[Tensor], list[int], Feed]] = {}

    def of(
        self,
        images: Sequence[Tensor],
        labels: Sequence[Tensor],
        settings: TrainConfig,
        generators: Iterable[torch.Generator],
        augmentation: Augmentation | None = None,
    ) -> Feed:
        """Return a feed of these clients' data, each of which is in tensors of its own."""
        if augmentation is not None:  # every round is fed something else
            return _feed(images, labels, settings, generators, augmentation)
        parts = [*images, *labels]
        # These tensors are kept alive here, so that no other can have the identity of one of them.
        key = (settings.batch_size, settings.local_epochs, *map(id, parts))
        versions = [part._version for part in parts]
        if key in self._kept:
            _, seen, feed = self._kept[key]
            if seen == versions:
                return feed
        feed = _feed(images, labels, settings, generators)
        if feed.stays:
            if len(self._kept) == self.KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = parts, versions, feed
        return feed


def _feed(
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    settings: TrainConfig,
    generators: Iterable[torch.Generator],
    augmentation: Augmentation | None = None,
) -> Feed:
    counts = [len(mine) for mine in labels]
    return Feed(
        joined(images), torch.cat(list(labels)), counts, settings, generators, augmentation=augmentation
    )


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of all parts in one tensor: without a copy, if they already follow one another."""
    whole = parts[0]
    row = whole[0].nbytes
    end = begin = whole.data_ptr()
    for part in parts:
        if part.data_ptr() != end or not part.is_contiguous():
            return torch.cat(list(parts))
        end += len(part) * row
    memory = whole.untyped_storage()
    if end > memory.data_ptr() + memory.nbytes():  # neighbours by accident
        return torch.cat(list(parts))
    return whole.as_strided(((end - begin) // row, *whole.shape[1:]), whole.stride())
