"""Prune, then unlearn: cut the smallest weights, then fine-tune what is left on R.

Formula: of all weights that can be pruned, together, the share ``sparsity`` with the smallest |θ| becomes 0; then
fine-tune on R, with those weights at 0 after every step, bit for bit, whatever momentum and weight decay would do.

Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023; code OPTML-Group/Unlearn-Sparse
(sparsity 95 %, one-shot; then 10 epochs with lr 0.01).
Deviations: the model at hand is pruned; the code prunes while it makes the original, rewinds and trains again. The
weights of convolutions and of linear layers can be pruned, never biases and normalisation; the code prunes
convolutions alone (``convolutions_only``). The learning rate is constant. Clipping counts the gradient of pruned
weights too.
BatchNorm: the student trains in training mode on R, which also fits the statistics to the pruned weights.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from fedunlearn.config.conditions import (
    Count,
    CountOrZero,
    Momentum,
    NonNegative,
    Rate,
    at_least,
    below,
    both,
)
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class PruneThenUnlearn(Settings):
    """Hyper-parameters; ``sparsity`` is the share of the prunable weights that becomes 0."""

    sparsity: Annotated[float, both(at_least(0), below(1))] = 0.95
    convolutions_only: bool = False
    epochs: CountOrZero = 10
    batch_size: Count = 256
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4


def pruned(model: FlatModel, sparsity: float, *, convolutions_only: bool = False) -> Tensor:
    """Return which weights to cut: bool, shape (num_parameters,). Of equally large ones those that come first."""
    kinds = (nn.Conv2d,) if convolutions_only else (nn.Linear, nn.modules.conv._ConvNd)
    weights = {id(layer.weight) for layer in model.module.modules() if isinstance(layer, kinds)}
    prunable = torch.cat(
        [
            torch.full_like(w, id(p) in weights, dtype=torch.bool)
            for p, w in zip(model.parameters, model.pieces, strict=True)
        ]
    )
    sizes = torch.where(prunable, model.vector.abs(), torch.inf)
    smallest = sizes.sort(stable=True).indices
    mask = torch.zeros_like(prunable)
    mask[smallest[: round(sparsity * int(prunable.sum()))]] = True
    return mask


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: PruneThenUnlearn,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the pruned model after ``epochs`` passes over R."""
    student = model.copy()
    mask = pruned(student, settings.sparsity, convolutions_only=settings.convolutions_only)

    def hold_pruned() -> None:
        student.vector.masked_fill_(mask, 0.0)

    hold_pruned()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    steps.after_step = hold_pruned
    for _ in range(settings.epochs):
        for images, labels in draws.batches(retain, settings.batch_size):
            steps.take(conditions.loss(student.forward(images), labels))
    return student


METHOD = Method(
    name="prune-then-unlearn",
    settings=PruneThenUnlearn,
    unlearn=unlearn,
    source="Jia et al., NeurIPS 2023",
    passes=lambda settings: Passes(forget=0, retain=settings.epochs),
    tasks=("classification", "segmentation"),
)
