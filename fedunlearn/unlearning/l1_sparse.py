"""ℓ1-sparse: fine-tune on R with a penalty on the size of all weights, which fades out.

Formula: in epoch e = 0, 1, …, E − 1: θ ← θ − lr ∇ [CE(R) + γ (1 − e/E') ‖θ‖₁], with E' = E − ``plain_epochs``, and
no penalty from epoch E' on. All parameters count, biases and normalisation among them.

Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023; code OPTML-Group/Unlearn-Sparse
(10 epochs, lr 0.01, no plain epochs). γ is searched from 1e-6 to 1e-4 and the default is the middle; the code's own
default, 0.2, is one it shares with another method.
Deviations: the learning rate is constant.
BatchNorm: the student trains in training mode on R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, CountOrZero, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class L1Sparse(Settings):
    """Hyper-parameters; ``gamma`` is the penalty's weight at first, ``plain_epochs`` how many come after it."""

    gamma: NonNegative = 1e-5
    plain_epochs: CountOrZero = 0
    epochs: Count = 10
    batch_size: Count = 256
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4


def penalty_weight(settings: L1Sparse, epoch: int) -> float:
    """Return the penalty's weight in an epoch: from γ at 0 in a straight line to nothing at E', and nothing after."""
    penalised = settings.epochs - settings.plain_epochs
    return settings.gamma * (1 - epoch / penalised) if epoch < penalised else 0.0


def l1_norm(model: FlatModel) -> Tensor:
    """Return ‖θ‖₁ over all parameters, a scalar with a gradient: the sign, and 0 at 0."""
    return torch.stack([p.abs().sum() for p in model.parameters]).sum()


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: L1Sparse,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after ``epochs`` passes over R under a fading penalty."""
    student = model.copy()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    for epoch in range(settings.epochs):
        weight = penalty_weight(settings, epoch)
        for images, labels in draws.batches(retain, settings.batch_size):
            loss = conditions.loss(student.forward(images), labels)
            steps.take(loss + weight * l1_norm(student) if weight else loss)
    return student


METHOD = Method(
    name="l1-sparse",
    settings=L1Sparse,
    unlearn=unlearn,
    source="Jia et al., NeurIPS 2023",
    passes=lambda settings: Passes(forget=0, retain=settings.epochs),
    tasks=("classification", "segmentation"),
)
