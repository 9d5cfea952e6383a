"""FedQUIT's local step: on F a student imitates the global model, but for the true class.

Formula: L = KL(softmax(z') ‖ student) over F; z' is the logits of θ_o with that of the true class replaced by the
sample's smallest.

Source: Mora et al., "FedQUIT: On-Device Federated Unlearning via a Quasi-Competent Virtual Teacher", 2024 (arXiv
2408.07587); defaults as in the code (alessiomora/FedQUIT, its ResNet-18 scripts): Adam, 10⁻⁴, 1 epoch, batches of 32.
Deviations: Adam's ε is PyTorch's 10⁻⁸, not Keras's 10⁻⁷; probabilities are not clipped.
The teacher is in evaluation mode; the student's BatchNorm statistics see F alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.distillation import divergence
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, adam, frozen, logits_of, num_batches


@dataclass(frozen=True)
class FedQuit(Settings):
    """Hyper-parameters."""

    epochs: Count = 1
    batch_size: Count = 32
    lr: Rate = 1e-4


def virtual_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits, (n, classes), with each true class's replaced by the smallest of its row."""
    return logits.scatter(1, labels[:, None], logits.min(dim=1, keepdim=True).values)


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: FedQuit,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the student of the virtual teacher."""
    student, teacher = model.copy(), frozen(model)
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, adam(student, settings.lr), conditions, total), Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(forget, settings.batch_size):
            taught = virtual_logits(logits_of(teacher, images), labels)
            steps.take(divergence(student.forward(images), taught))
    return student


METHOD = Method(
    name="fedquit",
    settings=FedQuit,
    unlearn=unlearn,
    source="Mora et al., 2024, arXiv 2408.07587",
    needs=lambda settings: Needs(retained=False, statistics=True),
    passes=lambda settings: Passes(forget=1.5 * settings.epochs, retain=0),
)
