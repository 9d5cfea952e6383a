"""NegGrad+: go up the loss of F and down that of R in the same step.

Formula: θ ← θ − lr ∇ [α CE(batch of R) − (1 − α) CE(batch of F)]; an epoch is a pass over R, and F comes round again
and again beside it.

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023; code meghdadk/SCRUB (defaults: α 0.95,
10 epochs, plain SGD with lr 0.01, batches of 64 from F and of 32 from R).
Deviations: F is shuffled anew each time it comes round; in the code it comes round in the order of the epoch's first
time. No penalty on the distance to the original weights, which the code adds to the loss of R. The learning rate is
constant.
Choice of ours: the order of F is drawn under the purpose ``forget-batches``, so that R is seen as fine-tune sees it.
BatchNorm: the student trains in training mode and its statistics are of both, half and half, so ascent may spoil
them; the code leaves them as they are (evaluation mode).
"""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, Fraction, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class NegGradPlus(Settings):
    """Hyper-parameters; ``alpha`` is the weight of the loss on R, from 0 to 1."""

    alpha: Fraction = 0.95
    epochs: Count = 10
    batch_size: Count = 32
    forget_batch_size: Count = 64
    lr: Rate = 0.01
    momentum: Momentum = 0.0
    weight_decay: NonNegative = 0.0


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: NegGradPlus,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after ``epochs`` passes over R with F beside it."""
    student, alpha = model.copy(), settings.alpha
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    beside = Draws(torch_generator(generator.initial_seed(), "forget-batches"), conditions)
    forgotten = beside.forever(forget, settings.forget_batch_size)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(retain, settings.batch_size):
            retain_loss = conditions.loss(student.forward(images), labels)
            images, labels = next(forgotten)
            forget_loss = conditions.loss(student.forward(images), labels)
            steps.take(alpha * retain_loss - (1 - alpha) * forget_loss)
    return student


def _passes(settings: NegGradPlus) -> Passes:
    """How often F comes round depends on its size; counted is what its batches come to in passes over R, at most."""
    beside = settings.forget_batch_size / settings.batch_size
    return Passes(forget=0, retain=settings.epochs * (1 + beside))


METHOD = Method(
    name="neggrad-plus",
    settings=NegGradPlus,
    unlearn=unlearn,
    source="Kurmanji et al., NeurIPS 2023",
    passes=_passes,
    tasks=("classification", "segmentation"),
)
