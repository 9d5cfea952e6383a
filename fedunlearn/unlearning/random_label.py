"""Random label: learn wrong labels on F, and R as it is.

Formula: per epoch labels ỹ are drawn for F, uniform over all K classes; θ ← θ − lr ∇ CE on (F, ỹ) and on R: a pass
over F and then one over R ("forget-then-retain", the habit with CIFAR-10), or one pass over both, shuffled together
("mixed", with CIFAR-100).

Source: Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020; both habits as in the code of SalUn (Fan
et al., ICLR 2024), OPTML-Group/Unlearn-Saliency. There the true label may be drawn; ``exclude_true_label`` leaves it
out.
Deviations: labels are drawn anew in every epoch; the learning rate is constant.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.config.conditions import Count, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training.batch_sizes import num_batches
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, num_classes, sgd

Order = Literal["forget-then-retain", "mixed"]


class Relabelling(Protocol):
    """The hyper-parameters that every method with random labels has."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def order(self) -> Order: ...
    @property
    def exclude_true_label(self) -> bool: ...


@dataclass(frozen=True)
class RandomLabel(Settings):
    """Hyper-parameters."""

    epochs: Count = 10
    batch_size: Count = 256
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    order: Order = "forget-then-retain"
    exclude_true_label: bool = False


def random_labels(labels: Tensor, classes: int, generator: torch.Generator, *, exclude: bool) -> Tensor:
    """Return labels drawn uniformly: from all classes, or with ``exclude`` from all but each example's own."""
    if not exclude:
        return torch.randint(classes, labels.shape, generator=generator).to(labels.device)
    moved = torch.randint(1, classes, labels.shape, generator=generator).to(labels.device)
    return (labels + moved) % classes


def total_steps(forget: Examples, retain: Examples, settings: Relabelling, conditions: Conditions) -> int:
    """Return how many steps :func:`relabelled_epochs` will take."""
    mixed = settings.order == "mixed"
    passes = [forget.size + retain.size] if mixed else [forget.size, retain.size]
    return settings.epochs * sum(num_batches(n, settings.batch_size, conditions.least_batch) for n in passes)


def relabelled_epochs(
    student: FlatModel,
    forget: Examples,
    retain: Examples,
    settings: Relabelling,
    steps: Steps,
    generator: torch.Generator,
    conditions: Conditions,
) -> None:
    """Train a student in place on F with random labels and on R with its own.

    Labels are drawn from a generator seeded with this one's seed under the purpose ``labels``.
    """
    draws = Draws(generator, conditions)
    drawing = torch_generator(generator.initial_seed(), "labels")
    classes = num_classes(student, forget)
    for _ in range(settings.epochs):
        wrong = random_labels(forget.labels, classes, drawing, exclude=settings.exclude_true_label)
        relabelled = Examples(forget.images, wrong)
        parts = [part for part in (relabelled, retain) if part.size]
        if settings.order == "mixed":
            parts = [Examples(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))]
        for part in parts:
            for images, labels in draws.batches(part, settings.batch_size):
                steps.take(F.cross_entropy(student.forward(images), labels))


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: RandomLabel,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model that has learned random labels on F, and R as it is."""
    student = model.copy()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    steps = Steps(student, optimizer, conditions, total_steps(forget, retain, settings, conditions))
    relabelled_epochs(student, forget, retain, settings, steps, generator, conditions)
    return student


METHOD = Method(
    name="random-label",
    settings=RandomLabel,
    unlearn=unlearn,
    source="Golatkar et al., CVPR 2020",
    needs=lambda settings: Needs(retained=False),
    passes=lambda settings: Passes(forget=settings.epochs, retain=settings.epochs),
)
