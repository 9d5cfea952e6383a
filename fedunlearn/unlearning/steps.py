"""What every method's loop is made of: batches in a drawn order, and optimiser steps that clip and report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import batch_sizes
from fedunlearn.training.optimizers import FlatSGD
from fedunlearn.unlearning.contract import Conditions, Examples, Report


class Optimizer(Protocol):
    """What a step needs of an optimiser."""

    def step(self) -> object:
        """Overwrite the weights."""
        ...


def sgd(model: FlatModel, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> FlatSGD:
    """Return a fresh ``torch.optim.SGD``, bit for bit, on the model's flat weights."""
    return FlatSGD(model, lr, momentum, weight_decay)


def adam(model: FlatModel, lr: float) -> torch.optim.Adam:
    """Return a fresh ``torch.optim.Adam`` on the model's flat weights."""
    return torch.optim.Adam([model.parameter], lr=lr)


class Steps:
    """The optimiser steps of one method on one model, which is set to training mode.

    Parameters
    ----------
    model
        The one that changes.
    optimizer
        Of that model.
    conditions
        Clipping and progress.
    total
        How many steps there will be.
    """

    def __init__(self, model: FlatModel, optimizer: Optimizer, conditions: Conditions, total: int) -> None:
        self._model = model
        self._optimizer = optimizer
        self._conditions = conditions
        self._total = total
        self._done = 0
        self.before_step: Callable[[], None] | None = None
        """Called when the gradient is ready, clipped: what a method does to it."""
        self.after_step: Callable[[], None] | None = None
        """Called when the weights are new: what a method does to them."""
        model.module.train()

    def take(self, loss: Tensor) -> None:
        """Make one step down the gradient of a loss, a scalar."""
        self._model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._conditions.clip_norm is not None:
            clip(self._model.gradient, self._conditions.clip_norm)
        if self.before_step is not None:
            self.before_step()
        self._optimizer.step()
        if self.after_step is not None:
            self.after_step()
        self._done += 1
        if self._conditions.progress is not None:
            self._conditions.progress(Report(self._done, self._total, float(loss.detach())))


def clip(gradient: Tensor, longest: float) -> None:
    """Shorten a gradient to a length (L2), as ``torch.nn.utils.clip_grad_norm_`` does, in place."""
    gradient.mul_(torch.clamp(longest / (gradient.norm() + 1e-6), max=1.0))


def num_batches(examples: Examples, batch_size: int, least: int = 1) -> int:
    """Return how many batches one pass takes, ``least`` being ``conditions.least_batch`` where it is training."""
    return batch_sizes.num_batches(examples.size, batch_size, least)


class Draws:
    """Batches of one method, in drawn orders and augmented.

    Every pass visits all rows once in the order ``torch.randperm(n, generator=generator)``. What an augmentation
    draws comes from a generator of its own, seeded with this one's seed, so that the orders are the same without.
    """

    def __init__(self, generator: torch.Generator, conditions: Conditions) -> None:
        self.generator = generator
        self._augmentation = conditions.augmentation
        self._least = conditions.least_batch
        self._augmenting = torch_generator(generator.initial_seed(), "augmentation")

    def batches(self, examples: Examples, batch_size: int) -> Iterator[Examples]:
        """Yield one pass; the last, smaller batch is kept, as :mod:`fedunlearn.training.batch_sizes` says."""
        order = torch.randperm(examples.size, generator=self.generator).to(examples.labels.device)
        for rows in torch.split(order, batch_sizes.batch_sizes(examples.size, batch_size, self._least)):
            yield self._augmented(examples.select(rows))

    def forever(self, examples: Examples, batch_size: int) -> Iterator[Examples]:
        """Yield pass after pass, each in an order of its own, without end."""
        while True:
            yield from self.batches(examples, batch_size)

    def _augmented(self, batch: Examples) -> Examples:
        if self._augmentation is None:
            return batch
        draws = self._augmentation.draw(batch.size, self._augmenting)
        return Examples(*self._augmentation.apply(batch.images, batch.labels, draws))


def frozen(model: FlatModel) -> FlatModel:
    """Return a copy to read targets from: in evaluation mode, so that no buffer of it ever changes."""
    teacher = model.copy()
    teacher.module.eval()
    return teacher


def logits_of(teacher: FlatModel, images: Tensor) -> Tensor:
    """Return a frozen model's logits, (n, classes), without a gradient."""
    with torch.no_grad():
        return teacher.forward(images)


def num_classes(model: FlatModel, examples: Examples) -> int:
    """Return how many classes a model tells apart."""
    # Two: BatchNorm without running statistics takes those of the batch.
    image = examples.images[:1]
    return logits_of(frozen(model), image.expand(2, *image.shape[1:])).shape[1]


def finite(values: Tensor, method: str, what: str) -> Tensor:
    """Return the values a method decides by; refuse any that is not finite, which no comparison would notice.

    Raises
    ------
    UserError
        It names the method and the values.
    """
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            f"{method}: {what} are not all finite (NaN or Inf), as gradients of these examples overflow; scale the "
            "images, or use another routine"
        )
    return values
