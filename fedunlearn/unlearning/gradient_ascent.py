"""Gradient ascent: undo learning by climbing the loss of F; nothing else is looked at.

Formula: θ ← θ + lr ∇ CE(F), epoch after epoch.

Source: Thudi et al., "Unrolling SGD: Understanding Factors Influencing Machine Unlearning", EuroS&P 2022; defaults (5
epochs, lr 1e-4, and momentum and weight decay of the training) as in the code of SalUn (Fan et al., ICLR 2024),
OPTML-Group/Unlearn-Saliency.
Deviations: the learning rate is constant. Weight decay pulls towards zero as ever, it is not turned round.
BatchNorm: the student trains in training mode, so that its statistics become those of F.
Nothing bounds the ascent: with a large ``lr`` or many epochs the model is destroyed.
"""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class GradientAscent(Settings):
    """Hyper-parameters."""

    epochs: Count = 5
    batch_size: Count = 256
    lr: Rate = 1e-4
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: GradientAscent,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after ``epochs`` passes over F, each step up its loss."""
    student = model.copy()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(forget, settings.batch_size):
            steps.take(-conditions.loss(student.forward(images), labels))
    return student


METHOD = Method(
    name="gradient-ascent",
    settings=GradientAscent,
    unlearn=unlearn,
    source="Thudi et al., EuroS&P 2022",
    needs=lambda settings: Needs(retained=False),
    passes=lambda settings: Passes(forget=settings.epochs, retain=0),
    tasks=("classification", "segmentation"),
)
