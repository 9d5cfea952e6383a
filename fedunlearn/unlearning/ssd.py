"""SSD, selective synaptic dampening: shrink the weights that matter much more for F than for all of the data.

Formula: the importance of a weight for a set is the mean over its batches of (∂ mean loss of the batch / ∂θ)², at the
original θ in evaluation mode. With D = F and R together, where I_F > α I_D: θ ← θ · min(1, λ I_D / I_F).

Source: Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
AAAI 2024; code if-loops/selective-synaptic-dampening (defaults for ResNets: α 10, λ 1; α 5 for transformers; batches
of 64 for classes, and of 128 for random examples).
Deviations: none known. As in the code D is R and then F, in the order of the data, and a last, smaller batch counts
as much as any other. The batch size changes the answer: larger batches let their examples' gradients cancel.
Nothing is random, nothing is augmented, and BatchNorm's statistics stay as they are. Where F is all there is, I_F =
I_D and nothing would change: it refuses to run without R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, NonNegative
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.training.recipe import Loss
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import finite, frozen, num_batches


@dataclass(frozen=True)
class SSD(Settings):
    """Hyper-parameters: ``selection`` is α, ``dampening`` λ."""

    selection: NonNegative = 10.0
    dampening: NonNegative = 1.0
    batch_size: Count = 64


def importances(model: FlatModel, examples: Examples, batch_size: int, loss: Loss) -> Tensor:
    """Return the mean squared gradient of the batches, taken as the data lie, in evaluation mode; like ``vector``."""
    probe = frozen(model)
    total = torch.zeros_like(probe.vector)
    for rows in torch.split(torch.arange(examples.size, device=examples.labels.device), batch_size):
        images, labels = examples.select(rows)
        probe.zero_grad()
        loss(probe.forward(images), labels).backward()  # type: ignore[no-untyped-call]
        total += probe.gradient.square()
    return total / num_batches(examples, batch_size)


def dampened(weights: Tensor, of_forget: Tensor, of_all: Tensor, settings: SSD) -> Tensor:
    """Return the weights, smaller where F's importance exceeds α times that of all; none is larger than before."""
    factor = (settings.dampening * of_all / of_forget).clamp(max=1.0)
    return torch.where(of_forget > settings.selection * of_all, weights * factor, weights)


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: SSD,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model with the weights dampened that F needs most."""
    student = model.copy()
    everything = Examples(*(torch.cat(tensors) for tensors in zip(retain, forget, strict=True)))
    of_forget, of_all = (
        finite(importances(model, examples, settings.batch_size, conditions.loss), "ssd", "importances")
        for examples in (forget, everything)
    )
    student.vector.copy_(dampened(model.vector, of_forget, of_all, settings))
    return student


METHOD = Method(
    name="ssd",
    settings=SSD,
    unlearn=unlearn,
    source="Foster et al., AAAI 2024",
    needs=lambda settings: Needs(original_data=True, statistics=True),
    passes=lambda settings: Passes(forget=2, retain=1),
    tasks=("classification", "segmentation"),
)
