"""Many clients, or models, of one architecture trained at once: the same as one by one, up to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training.feed import Feed, Feeds, Step
from fedunlearn.training.flat_stack import FlatStack
from fedunlearn.training.malloc import keep_freed_memory
from fedunlearn.training.optimizers import keep_first, make_optimizer
from fedunlearn.training.recipe import CLASSIFY, Recipe
from fedunlearn.training.stack_size import stack_size
from fedunlearn.training.stackable import (
    NotStackableError,
    StackForward,
    stack_forward,
    why_not_this_loss,
)


@dataclass(frozen=True)
class StackResult:
    """What became of the models of a stack, in the order in which they were given."""

    vectors: Tensor
    """Their weights, (models, num_parameters). The trainer's own memory, the caller's until its next call."""
    num_examples: list[int]
    """Rows of each one's training data (not rows times epochs)."""
    losses: list[float]
    """Per model the mean cross-entropy (nats) over all rows seen, each at the weights it was seen with."""
    buffers: list[dict[str, Tensor]] = field(default_factory=list)
    """Per model the buffers after training; none, where the architecture has none or was stacked."""


class StackTrainer:
    """Trains many models of one architecture at once; everything it needs stays from call to call.

    Parameters
    ----------
    model
        The architecture, dtype and device. Its weights are neither read nor changed.

    Raises
    ------
    NotStackableError
        On the first call, if the architecture cannot be trained so; see :func:`why_not_stackable`.
    """

    def __init__(self, model: FlatModel) -> None:
        self._module = model.module
        self._stack = FlatStack(model.module.parameters())
        self._forwards: dict[tuple[int, ...], StackForward] = {}
        self._sizes: dict[object, int] = {}
        self.feeds = Feeds()
        self.autocast = model.autocast
        self._precision: AbstractContextManager[object] = nullcontext()
        if model.autocast is not None:
            self._precision = torch.autocast(model.vector.device.type, model.autocast)
        if model.vector.device.type == "cpu":
            keep_freed_memory()

    def train(
        self, start: Tensor, feed: Feed, settings: TrainConfig, *, lr: float, at_once: int | None = None
    ) -> StackResult:
        """Train each model on its own data, as :func:`train_local` does.

        Parameters
        ----------
        start : Tensor, shape (num_parameters,) or (models, num_parameters)
            The weights that all start from, or each one's own.
        feed
            The models' data, on this trainer's device and in its dtype, and the order of their batches.
        settings
            The optimiser counts.
        lr
            Learning rate, after decay.
        at_once
            How many models to train side by side; None: as many as :func:`stack_size` finds good.
        """
        num_models, ranking, stack = len(feed.counts), feed.batches.ranking, self._stack
        forward = self._forward_of(feed.image_shape)
        if at_once is None:
            at_once = self.good_size(feed.image_shape, settings)
        if ranking is not None and start.dim() == 2:
            start = start.index_select(0, ranking.to(start.device))
        stack.load(start, num_models)
        totals = torch.zeros_like(stack.rows[:, 0])
        for first, last in feed.batches.windows(at_once):
            stack.open(first, last)
            forward.load(stack.weights)
            optimizer = make_optimizer(stack, settings, lr)
            for step in feed.steps(first, last):
                left = len(step.labels)
                if left < len(stack.vector):
                    stack.keep_first(left)
                    keep_first(optimizer, left)
                    forward.load(stack.weights)
                losses = self._losses(forward, step)
                stack.backward(losses)
                optimizer.step()
                totals[first : first + left] += losses.detach() * step.sizes
        vectors = stack.rows
        if ranking is not None:
            rank = torch.argsort(ranking).to(vectors.device)
            vectors, totals = vectors.index_select(0, rank), totals.index_select(0, rank)
        losses_seen = [
            total / (n * feed.epochs) for total, n in zip(totals.tolist(), feed.counts, strict=True)
        ]
        return StackResult(vectors, list(feed.counts), losses_seen)

    def good_size(self, image_shape: tuple[int, ...], settings: TrainConfig) -> int:
        """Return how many models to train side by side; see :func:`stack_size`."""
        key = (image_shape, settings.batch_size, settings.optimizer, settings.momentum > 0)
        if key not in self._sizes:
            self._sizes[key] = stack_size(self._module, image_shape, settings)
        return self._sizes[key]

    def _losses(self, forward: StackForward, step: Step) -> Tensor:
        """Return each model's mean cross-entropy over its own batch."""
        with self._precision:
            logits = forward(step.images)
        each = F.cross_entropy(logits.to(step.images.dtype), step.labels, reduction="none")
        return each.mean(dim=1) if step.share is None else (each * step.share).sum(dim=1)

    def _forward_of(self, image_shape: tuple[int, ...]) -> StackForward:
        if image_shape not in self._forwards:
            self._forwards[image_shape] = stack_forward(self._module, image_shape)
        return self._forwards[image_shape]


_trainers: WeakKeyDictionary[FlatModel, StackTrainer] = WeakKeyDictionary()


def train_stack(
    model: FlatModel,
    start: Tensor,
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    settings: TrainConfig,
    *,
    lr: float,
    generators: Iterable[torch.Generator],
    recipe: Recipe = CLASSIFY,
) -> StackResult:
    """Train many clients at once, each on data of its own, with the trainer that stays with ``model``.

    Up to rounding the same as :func:`train_local` client by client.

    Parameters
    ----------
    model
        The architecture; its weights are neither read nor changed.
    start : Tensor, shape (num_parameters,) or (clients, num_parameters)
        The weights that all start from, or each one's own.
    images, labels : sequences of Tensors
        Each client's training data, as for :func:`train_local`. Slices that follow one another in memory are
        not copied, and nothing is looked at twice of tensors that come again.
    settings
        Optimiser, batch size, epochs.
    lr
        Learning rate of this round, after decay.
    generators
        Each client's own; see :class:`Feed`.
    recipe
        Augmentation; the loss must be cross-entropy.

    Returns
    -------
    StackResult
        Its ``vectors`` may be overwritten, and are valid until the next call with this model.

    Raises
    ------
    NotStackableError
        If the architecture cannot be trained in a stack, or not with this loss.
    """
    if reason := why_not_this_loss(recipe):
        raise NotStackableError(reason)
    trainer = _trainers.get(model)
    if trainer is None or trainer.autocast != model.autocast:
        trainer = _trainers[model] = StackTrainer(model)
    feed = trainer.feeds.of(images, labels, settings, generators, recipe.augmentation)
    return trainer.train(start, feed, settings, lr=lr)
