"""GDA, gradient descent-ascent in turns: a pass up the loss of F, then a pass down that of R.

Formula: in epoch e = 0, 1, …: if e < ascent_epochs, θ ← θ + lr ∇ CE over all batches of F; then θ ← θ − lr ∇ CE over
all batches of R. Plain SGD: no momentum, no weight decay.

Source: "Ascent Fails to Forget", arXiv 2509.26427, NeurIPS 2025; code RoyRin/data-unlearning-bench (defaults: its
example's, lr 1e-3, 5 epochs of which 3 with ascent, batches of 32 from F and of 64 from R; the paper's grid is lr
5e-5 … 5e-3, 5 to 10 epochs, 3 or 5 with ascent). The paper's point is that this can end further from a retrained
model than it began.
Deviations: batches are shuffled; the code goes through them in the order of the data.
BatchNorm: the student trains in training mode; a pass over F makes its statistics those of F, the one over R that
follows mends them.
"""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, CountOrZero, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class GDA(Settings):
    """Hyper-parameters; ``ascent_epochs`` is how many of the epochs, the first ones, go over F as well."""

    epochs: Count = 5
    ascent_epochs: CountOrZero = 3
    batch_size: Count = 64
    forget_batch_size: Count = 32
    lr: Rate = 1e-3


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: GDA,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after ``epochs`` of ascent on F, as long as there is any, and descent on R."""
    student = model.copy()
    ascents = min(settings.ascent_epochs, settings.epochs)
    total = ascents * num_batches(forget, settings.forget_batch_size, conditions.least_batch)
    total += settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, sgd(student, settings.lr), conditions, total), Draws(generator, conditions)
    for epoch in range(settings.epochs):
        if epoch < settings.ascent_epochs:
            for images, labels in draws.batches(forget, settings.forget_batch_size):
                steps.take(-conditions.loss(student.forward(images), labels))
        for images, labels in draws.batches(retain, settings.batch_size):
            steps.take(conditions.loss(student.forward(images), labels))
    return student


METHOD = Method(
    name="gda",
    settings=GDA,
    unlearn=unlearn,
    source="arXiv 2509.26427, NeurIPS 2025",
    passes=lambda settings: Passes(min(settings.ascent_epochs, settings.epochs), settings.epochs),
    tasks=("classification", "segmentation"),
)
