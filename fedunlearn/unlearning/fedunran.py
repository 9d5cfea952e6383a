"""FedUNRAN's local step: F learns random labels, drawn anew for every batch, until that gets no better.

Formula: θ ← Adam(∇ CE(θ; x, ỹ)) over F, ỹ uniform over all K classes and redrawn per batch. It ends after ``epochs``
epochs, or after ``patience`` in a row whose mean loss is not below the lowest; the weights of the epoch with the
lowest loss are the result.

Source: a baseline in the code of PUF (Mora et al., arXiv 2504.05822; alessiomora/puf_unlearning), where the loop with
patience 3, but not the model that draws the labels, can be read. A reconstruction: up to 30 epochs; batch size and
learning rate are FedQUIT's.
Deviations: the best epoch's weights are taken at the last epoch too (Keras 2 only where it stops early).
``exclude_true_label`` leaves the true label out. Labels are drawn under the purpose ``labels``. Progress tells of at
most ``epochs`` epochs: stopping early, it ends before. BatchNorm statistics see F alone.
"""

from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F

from fedunlearn.config.conditions import Count, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.random_label import random_labels
from fedunlearn.unlearning.steps import Draws, Steps, adam, num_batches, num_classes


@dataclass(frozen=True)
class FedUnran(Settings):
    """Hyper-parameters; ``patience`` is how many epochs may pass without a new lowest loss."""

    epochs: Count = 30
    batch_size: Count = 32
    lr: Rate = 1e-4
    patience: Count = 3
    exclude_true_label: bool = False


def improves(losses: list[float]) -> bool:
    """Whether the last of the epochs' losses is lower than all before it."""
    return losses[-1] < min(losses[:-1], default=inf)


def stops(losses: list[float], patience: int) -> bool:
    """Whether none of the last ``patience`` epochs has brought a new lowest loss."""
    return len(losses) > patience and not min(losses[-patience:]) < min(losses[:-patience])


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: FedUnran,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model of the epoch with the lowest loss on random labels."""
    student = best = model.copy()
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, adam(student, settings.lr), conditions, total), Draws(generator, conditions)
    drawing, classes = torch_generator(generator.initial_seed(), "labels"), num_classes(student, forget)
    losses: list[float] = []
    for _ in range(settings.epochs):
        summed = 0.0
        for images, labels in draws.batches(forget, settings.batch_size):
            wrong = random_labels(labels, classes, drawing, exclude=settings.exclude_true_label)
            loss = F.cross_entropy(student.forward(images), wrong)
            steps.take(loss)
            summed += float(loss.detach()) * len(labels)
        losses.append(summed / forget.size)
        if improves(losses):
            best = student.copy()
        if stops(losses, settings.patience):
            break
    return best


METHOD = Method(
    name="fedunran",
    settings=FedUnran,
    unlearn=unlearn,
    source="Mora et al., 2025, arXiv 2504.05822 (a baseline there)",
    needs=lambda settings: Needs(retained=False),
    passes=lambda settings: Passes(forget=settings.epochs, retain=0),
)
