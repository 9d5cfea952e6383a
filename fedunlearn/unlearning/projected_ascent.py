"""Projected gradient ascent: climb the loss of F near a model that knows nothing of it, and stop in time.

Formula: from θ_ref, the model that is given, in every step:

- θ ← θ + lr ∇ CE(F), with momentum, the gradient shortened to the length ``clip``;
- where ‖θ − θ_ref‖ > ρ = ``radius``: θ ← θ_ref + ρ (θ − θ_ref) / ‖θ − θ_ref‖;
- the last step is the first after which ‖θ − θ_u‖ > τ, θ_u being the model that was trained on F; after ``epochs``
  epochs it ends anyway.

Source: the local step of PGA, Halimi et al., "Federated Unlearning: How to Efficiently Erase a Client in FL?", 2022,
arXiv 2207.05521; defaults as in the code, IBM/federated-unlearning.
Deviations: τ = ``stop`` · ‖θ_ref − θ_u‖ by default; ``stop-at`` is an absolute τ, and the authors' is 1.48, of their
MNIST network. θ_u is what the server of the strategy ``pga`` sends as the tensor ``last``. Without it, as in a local
routine or on pooled data, nothing stops the ascent before its last epoch, and the given model has learnt F: the ball
alone holds it. ``radius`` and ``stop-at`` of 0 stand for none; the server of ``pga`` computes the radius. Progress
tells of at most ``epochs`` epochs. BatchNorm: as in gradient ascent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, CountOrZero, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, clip, num_batches, sgd

LAST = "last"
"""The tensor θ_u: what the client came to when it last trained."""


@dataclass(frozen=True)
class ProjectedAscent(Settings):
    """Hyper-parameters."""

    epochs: CountOrZero = 5
    batch_size: Count = 512
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    clip: Rate = 5.0
    radius: NonNegative = 0.0
    stop: Rate = 2.0
    stop_at: NonNegative = 0.0


def projected(w: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Return the point of a ball that is nearest to w, which is w itself where it lies within.

    Parameters
    ----------
    w, centre : Tensor, shape (num_parameters,)
    radius
        0: there is no ball.
    """
    away = w - centre
    distance = float(away.norm())
    return w if not radius or distance <= radius else away.mul_(radius / distance).add_(centre)


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: ProjectedAscent,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after at most ``epochs`` passes over F, each step up its loss and back into the ball."""
    student, reference = model.copy(), model.vector
    optimizer = sgd(student, settings.lr, settings.momentum)
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    steps.before_step = partial(clip, student.gradient, settings.clip)
    steps.after_step = lambda: student.load(projected(student.vector, reference, settings.radius))
    last = conditions.tensors.get(LAST)
    if last is not None:
        last = conditions.tensor(LAST, len(reference)).to(reference.dtype)
        stop = settings.stop_at or settings.stop * float((reference - last).norm())
    for images, labels in _epochs(draws, forget, settings):
        steps.take(-conditions.loss(student.forward(images), labels))
        if last is not None and float((student.vector - last).norm()) > stop:
            break
    return student


def _epochs(draws: Draws, forget: Examples, settings: ProjectedAscent) -> Iterator[Examples]:
    return chain.from_iterable(draws.batches(forget, settings.batch_size) for _ in range(settings.epochs))


METHOD = Method(
    name="projected-ascent",
    settings=ProjectedAscent,
    unlearn=unlearn,
    source="Halimi et al., 2022, arXiv 2207.05521",
    needs=lambda settings: Needs(retained=False),
    passes=lambda settings: Passes(forget=settings.epochs, retain=0),
    tasks=("classification", "segmentation"),
)
