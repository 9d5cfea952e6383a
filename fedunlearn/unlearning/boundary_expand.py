"""Boundary expand: F learns an extra class, which is then dropped.

Formula: the last layer gets an output K beside 0 … K−1;  θ ← θ − lr ∇ CE(θ; x, K) over F;  output K is taken away.
R and labels are not looked at.

Source: Chen et al., "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary", CVPR
2023; defaults as in the code (TY-LEE-KR/Boundary-Unlearning-Code): 10 epochs, SGD 10⁻⁵, momentum 0.9, batches of 64.
The new output starts as there: weights N(0, 2/(features + K + 1)), bias 0 (purpose ``extra-class``).
Deviations: the code runs its first batch in the mode that the model came in, here all are in training mode.
The model that comes back has K outputs and the given architecture. The last layer is found by running the model on
one image: it is the linear one whose outputs are the logits; models without one are refused, and those that run
it more than once or tie its weight to another layer's. BatchNorm statistics see
F alone, and are kept.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fedunlearn.config.conditions import Count, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.linear_head import head_of
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class BoundaryExpand(Settings):
    """Hyper-parameters."""

    epochs: Count = 10
    batch_size: Count = 64
    lr: Rate = 1e-5
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 0.0


def widened(model: FlatModel, head: str, generator: torch.Generator) -> FlatModel:
    """Return a copy of a model whose linear layer ``head`` has one more output, the last."""
    module = deepcopy(model.module)
    layer = module.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    classes, features = layer.weight.shape
    row = torch.empty(1, features, dtype=layer.weight.dtype)
    row.normal_(0.0, (2 / (features + classes + 1)) ** 0.5, generator=generator)
    layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), row.to(layer.weight.device)]))
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.cat([layer.bias.detach(), layer.bias.new_zeros(1)]))
    layer.out_features += 1
    return FlatModel(module, dtype=model.vector.dtype, device=model.vector.device)


def narrowed(wide: FlatModel, model: FlatModel) -> FlatModel:
    """Return a copy of a model with the weights and buffers of a widened one, less the extra output."""
    pairs = zip(wide.parameters, model.parameters, strict=True)
    kept = [new.detach() if new.shape == old.shape else new.detach()[: len(old)] for new, old in pairs]
    narrow = model.copy()
    narrow.load(torch.cat([weights.reshape(-1) for weights in kept]), wide.buffers())
    return narrow


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: BoundaryExpand,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model after F has been taken for a class of its own, without that class."""
    head = head_of(model, forget.images[:1], "boundary-expand", own=True)
    student = widened(model, head, torch_generator(generator.initial_seed(), "extra-class"))
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(forget, settings.batch_size):
            logits = student.forward(images)
            steps.take(F.cross_entropy(logits, torch.full_like(labels, logits.shape[1] - 1)))
    return narrowed(student, model)


METHOD = Method(
    name="boundary-expand",
    settings=BoundaryExpand,
    unlearn=unlearn,
    source="Chen et al., CVPR 2023",
    needs=lambda settings: Needs(retained=False, labels=False, last_layer="own"),
    passes=lambda settings: Passes(forget=settings.epochs, retain=0),
)
