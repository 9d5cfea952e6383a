"""Boundary shrink: every example of F learns the wrong label that is nearest to it.

Formula: x' = x + ε sign ∇ₓ CE(θ_o; x, y);  ỹ = argmax_{j ≠ y} θ_o(x')_j;  θ ← θ − lr ∇ CE(θ; x, ỹ) over F. R is not
looked at.

Source: Chen et al., "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary", CVPR
2023; defaults as in the code (TY-LEE-KR/Boundary-Unlearning-Code): FGSM with ε = 0.1 on pixels in [0, 1], 10 epochs,
SGD 10⁻⁵, momentum 0.9, batches of 64.
Deviations: the code takes the argmax over all classes, so that an example which FGSM does not carry over the boundary
learns its *true* label again (``exclude_true_label = False``). x' is not cut to [0, 1] nor rounded to 8 bits: images
arrive normalised, and ``conditions.pixel_std`` says by what, to turn ε into their units; clients know it of
their data. (By default ε is taken in the units of the images as they are.)
FGSM asks the original model, in evaluation mode; the student's BatchNorm statistics see F alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.config.conditions import Count, Fraction, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, frozen, logits_of, num_batches, sgd


@dataclass(frozen=True)
class BoundaryShrink(Settings):
    """Hyper-parameters; ``epsilon`` is in units of pixels in [0, 1]."""

    epsilon: Fraction = 0.1
    epochs: Count = 10
    batch_size: Count = 64
    lr: Rate = 1e-5
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 0.0
    exclude_true_label: bool = True


def fast_gradient_sign(teacher: FlatModel, images: Tensor, labels: Tensor, step: Tensor) -> Tensor:
    """Return images moved by ``step`` per channel, (channels, 1, 1), in the direction that raises the loss most."""
    moved = images.detach().clone().requires_grad_()
    # The sum: the gradient of one image does not shrink with the size of the batch.
    loss = F.cross_entropy(teacher.forward(moved), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, moved)
    return images + step * gradient.sign()


def nearest_labels(
    teacher: FlatModel, images: Tensor, labels: Tensor, step: Tensor, *, exclude: bool
) -> Tensor:
    """Return what the teacher takes the moved images for, with ``exclude`` anything but their own labels."""
    logits = logits_of(teacher, fast_gradient_sign(teacher, images, labels, step))
    if exclude:
        logits = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.argmax(dim=1)


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: BoundaryShrink,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model that has learned the nearest wrong labels on F."""
    student, teacher = model.copy(), frozen(model)
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    total = settings.epochs * num_batches(forget, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    stds, channels = conditions.pixel_std, forget.images.shape[1]
    if len(stds) not in (1, channels):
        raise UserError(
            f"boundary-shrink: pixel_std has {len(stds)} numbers, and images have {channels} channels; give one for "
            "each, or one for all"
        )
    step = settings.epsilon / forget.images.new_tensor(stds).view(-1, 1, 1)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(forget, settings.batch_size):
            wrong = nearest_labels(teacher, images, labels, step, exclude=settings.exclude_true_label)
            steps.take(F.cross_entropy(student.forward(images), wrong))
    return student


METHOD = Method(
    name="boundary-shrink",
    settings=BoundaryShrink,
    unlearn=unlearn,
    source="Chen et al., CVPR 2023",
    needs=lambda settings: Needs(retained=False, statistics=True),
    passes=lambda settings: Passes(forget=2.5 * settings.epochs, retain=0),
)
