"""SalUn: random labels on F, but only those weights move that the forget loss says matter.

Formula: m = 1 for the share ``saliency`` of all weights with the largest |Σ_F ∇ CE| at the original θ. Then, epoch by
epoch, a pass over F with labels drawn uniformly from all classes, and a pass over R with its own; θ moves where m = 1
and stays as it was, bit for bit, elsewhere.

Source: Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image
Classification and Generation", ICLR 2024; code OPTML-Group/Unlearn-Saliency (defaults: half of the weights, 10
epochs, lr 0.013).
Deviations: weight decay and momentum do not move masked weights; the older code masked the gradient alone, which let
them (``legacy_mask``). The mask's gradients are summed over examples; the code sums the means of batches, in which a
smaller last one counts more. The learning rate is constant. Labels are drawn anew in every epoch.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, Momentum, NonNegative, Rate, above, at_most, both
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.random_label import relabelled_epochs, total_steps
from fedunlearn.unlearning.steps import Steps, finite, sgd


@dataclass(frozen=True)
class SalUn(Settings):
    """Hyper-parameters; ``saliency`` is the share of weights that may move."""

    saliency: Annotated[float, both(above(0), at_most(1))] = 0.5
    epochs: Count = 10
    batch_size: Count = 256
    lr: Rate = 0.013
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    order: Literal["forget-then-retain", "mixed"] = "forget-then-retain"
    exclude_true_label: bool = False
    legacy_mask: bool = False


def saliency_mask(
    model: FlatModel, forget: Examples, share: float, batch_size: int, conditions: Conditions
) -> Tensor:
    """Return which weights may move: bool, shape (num_parameters,), True for the ``share`` of largest |Σ_F ∇ loss|.

    Of n weights these are int(share · n), rounded down as in the authors' code. The gradient is that of the sum over
    F at the weights as they are, in evaluation mode. Of equal ones those that come first.
    """
    probe = model.copy()
    probe.module.eval()
    probe.zero_grad()
    for rows in torch.split(torch.arange(forget.size, device=forget.labels.device), batch_size):
        images, labels = forget.select(rows)
        loss = conditions.loss(probe.forward(images), labels) * len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
    sizes = finite(probe.gradient.abs(), "salun", "gradients")
    largest = sizes.sort(descending=True, stable=True).indices
    mask = torch.zeros_like(probe.gradient, dtype=torch.bool)
    mask[largest[: int(share * model.num_parameters)]] = True
    return mask


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: SalUn,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model whose salient weights have learned random labels on F, and R as it is."""
    mask = saliency_mask(model, forget, settings.saliency, settings.batch_size, conditions)
    student = model.copy()
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    steps = Steps(student, optimizer, conditions, total_steps(forget, retain, settings, conditions))

    def mask_gradient() -> None:
        student.gradient.mul_(mask)

    def hold_masked() -> None:
        student.vector.copy_(torch.where(mask, student.vector, model.vector))

    if settings.legacy_mask:
        steps.before_step = mask_gradient
    else:
        steps.after_step = hold_masked
    relabelled_epochs(student, forget, retain, settings, steps, generator, conditions)
    return student


METHOD = Method(
    name="salun",
    settings=SalUn,
    unlearn=unlearn,
    source="Fan et al., ICLR 2024",
    needs=lambda settings: Needs(statistics=True),
    passes=lambda settings: Passes(forget=settings.epochs + 1, retain=settings.epochs),
)
