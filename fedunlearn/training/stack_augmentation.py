"""What augmentation does to the data of a stack of models: per model the same as when it is trained alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.data.augmentation import Augmentation
from fedunlearn.training.local import augmentation_generator


class StackAugmentation:
    """An augmentation, and per model of a stack what it draws for each of the model's batches in turn.

    Parameters
    ----------
    augmentation
        Applied to the samples of all models at once.
    counts
        Rows per model.
    settings
        Batch size and epochs count: an augmentation is asked for as many rows at a time as a batch has.
    """

    def __init__(self, augmentation: Augmentation, counts: Sequence[int], settings: TrainConfig) -> None:
        self._augmentation = augmentation
        self._counts, self._batch_size, self._epochs = counts, settings.batch_size, settings.local_epochs
        self._drawn: list[Tensor] = []
        self._table: Tensor | None = None

    def beside(self, generators: Iterable[torch.Generator]) -> Iterator[torch.Generator]:
        """Yield the models' generators one after the other, having drawn what belongs to each first.

        Another generator is drawn from: see :func:`~fedunlearn.training.local.augmentation_generator`.
        """
        for n, generator in zip(self._counts, generators, strict=True):
            draw = augmentation_generator(generator)
            for _ in range(self._epochs):
                for start in range(0, n, self._batch_size):
                    size = min(self._batch_size, n - start)
                    self._drawn.append(self._augmentation.draw(size, draw))
            yield generator

    def apply(self, images: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples, changed.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        targets : Tensor, shape (n, …)
        places : Tensor of int64 on the processor, shape (n,)
            Of each in the sequence of all that the models see, model by model: see ``Batch.places``.
        """
        if self._table is None:
            self._table = torch.cat(self._drawn)
            self._drawn.clear()
        return self._augmentation.apply(images, targets, self._table.index_select(0, places))


def shape_fed(images: Tensor, labels: Tensor, augmentation: Augmentation | None) -> tuple[int, ...]:
    """Return the shape of an image as a model is trained on it: (channels, height, width)."""
    if augmentation is None:
        return tuple(images.shape[1:])
    parameters = augmentation.draw(1, torch.Generator())
    return tuple(augmentation.apply(images[:1], labels[:1], parameters)[0].shape[1:])
