"""Fine-tune: go on training on the retained examples, and let what was forgotten fade.

Formula: θ ← θ − lr ∇ CE(R), epoch after epoch.

Source: the baseline of Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020; defaults (10 epochs, lr
0.01) as in the code of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023.
Deviations: the learning rate is constant.
"""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class FineTune(Settings):
    """Hyper-parameters."""

    epochs: Count = 10
    batch_size: Count = 256
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: FineTune,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after ``epochs`` passes over R."""
    student = model.copy()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(retain, settings.batch_size):
            steps.take(conditions.loss(student.forward(images), labels))
    return student


METHOD = Method(
    name="fine-tune",
    settings=FineTune,
    unlearn=unlearn,
    source="Golatkar et al., CVPR 2020",
    passes=lambda settings: Passes(forget=0, retain=settings.epochs),
    tasks=("classification", "segmentation"),
)
