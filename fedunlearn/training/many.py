"""Many models of one architecture, each trained on its own rows of a dataset: oracles and shadow models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training.feed import Feed
from fedunlearn.training.local import train_local
from fedunlearn.training.recipe import CLASSIFY, Recipe
from fedunlearn.training.stack_augmentation import shape_fed
from fedunlearn.training.stackable import why_not_stackable
from fedunlearn.training.stacked import StackResult, StackTrainer


def train_many(
    model: FlatModel,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rows: Sequence[Tensor],
    settings: TrainConfig,
    *,
    generators: Sequence[torch.Generator],
    lr: float | None = None,
    at_once: int | None = None,
    recipe: Recipe = CLASSIFY,
) -> StackResult:
    """Train one model on each set of rows, for ``settings.local_epochs`` epochs.

    Model ``k`` ends in what

        model.load(start[k])
        train_local(model, images[rows[k]], labels[rows[k]], settings, lr=lr, generator=generators[k],
                    recipe=recipe)

    leaves, with the same batches in the same order: up to rounding where models are trained side by side, bit
    for bit where they are trained one by one. That is where architecture or loss are not stackable
    (:func:`why_not_stackable`), or the model is too large for two at a time to be of use.

    Parameters
    ----------
    model
        The architecture. Ends as it was.
    start : Tensor, shape (num_parameters,) or (models, num_parameters)
        Initial weights, for all or each its own. Buffers, if there are any, all start as ``model`` has them.
    images : Tensor, shape (n, channels, height, width)
        The dataset, on the model's device and in its dtype.
    labels : Tensor of int64, shape (n,)
    rows : sequence of int64 Tensors on the processor
        Each model's rows of the dataset, in its own order, one or more. Models may share rows.
    settings
        Optimiser, batch size, epochs.
    generators
        Each model's own, on the processor.
    lr
        Constant learning rate; None: ``settings.lr``.
    at_once
        How many models to train side by side; None: what fits memory and caches, see :func:`stack_size`.
    recipe
        Loss and augmentation.

    Returns
    -------
    StackResult
        Vectors (models, num_parameters), and per model its number of examples, mean loss over all epochs and
        buffers, if it has any.
    """
    lr = settings.lr if lr is None else lr
    trainer, image_shape = StackTrainer(model), shape_fed(images, labels, recipe.augmentation)
    if at_once is None:
        at_once = trainer.good_size(image_shape, settings)
    if at_once > 1 and not why_not_stackable(model.module, image_shape, recipe):
        counts = [len(mine) for mine in rows]
        together = torch.cat(list(rows))
        feed = Feed(images, labels, counts, settings, generators, together, augmentation=recipe.augmentation)
        return trainer.train(start, feed, settings, lr=lr, at_once=at_once)
    return _one_by_one(model, start, images, labels, rows, settings, generators, lr, recipe)


def _one_by_one(
    model: FlatModel,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rows: Sequence[Tensor],
    settings: TrainConfig,
    generators: Sequence[torch.Generator],
    lr: float,
    recipe: Recipe,
) -> StackResult:
    before, buffers = model.vector.clone(), model.buffers()
    vectors = start.new_empty((len(rows), start.shape[-1]))
    num_examples, losses, buffers_after = [], [], []
    try:
        for k, (mine, generator) in enumerate(zip(rows, generators, strict=True)):
            model.load(start if start.dim() == 1 else start[k], buffers)
            mine = mine.to(labels.device)
            result = train_local(
                model, images[mine], labels[mine], settings, lr=lr, generator=generator, recipe=recipe
            )
            vectors[k] = model.vector
            num_examples.append(result.num_examples)
            losses.append(result.loss)
            if buffers:
                buffers_after.append(model.buffers())
    finally:
        model.load(before, buffers)
    return StackResult(vectors, num_examples, losses, buffers_after)
