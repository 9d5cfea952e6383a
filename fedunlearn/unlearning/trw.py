"""TRW, tilted reweighting: F learns what the original says of it without its class, tilted towards similar classes.

Formula: for an example of class f to forget, with p the original model's softmax,

    q_f = 0,    q_i ∝ p_i exp(β s_i)  for i ≠ f,

and θ ← θ − lr ∇ CE to the targets: q on F, the labels on R. β = 0 is p_i / (1 − p_f). The similarities s come from
the rows of the last layer's weight, see :mod:`fedunlearn.unlearning.tilting`. With several classes q is zero on all.

Source: "TRW", arXiv 2506.20893 (β = 10). A reconstruction: similarities, loss and training are ours, and options;
momentum, weight decay and 10 epochs are the habit of the same group.
Deviations: β and the temperature together nearly make q a single class: :func:`target_entropy` says how nearly.
Cross-entropy to q differs from KL(q ‖ ·) by a constant. "mixed": an epoch is one pass over F and R shuffled together,
so that batch statistics are of both; "forget-then-retain": a pass over each, in which statistics of F alone enter
them. The learning rate is constant.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.config.conditions import Count, CountOrZero, Momentum, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.linear_head import head_of
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, frozen, logits_of, num_batches, num_classes, sgd
from fedunlearn.unlearning.tilting import similarities, tilted_targets


@dataclass(frozen=True)
class TRW(Settings):
    """Hyper-parameters; ``components = 0`` compares whole rows."""

    epochs: Count = 10
    batch_size: Count = 256
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    order: Literal["mixed", "forget-then-retain"] = "mixed"
    beta: NonNegative = 10.0
    centre: bool = True
    components: CountOrZero = 16
    temperature: Rate = 0.1


def classes_to_forget(model: FlatModel, forget: Examples, settings: TRW) -> tuple[Tensor, Tensor]:
    """Return which classes go, bool (K,), and the similarities, (K, K)."""
    count = num_classes(model, forget)
    gone = torch.zeros(count, dtype=torch.bool, device=forget.labels.device)
    gone[forget.labels] = True
    if gone.all():
        raise UserError(f"trw: F holds all {count} classes; at least one must stay")
    head = model.module.get_submodule(head_of(model, forget.images[:1], "trw"))
    assert isinstance(head, nn.Linear)
    found = similarities(
        head.weight,
        gone,
        temperature=settings.temperature,
        components=settings.components,
        centre=settings.centre,
    )
    return gone, found


def target_entropy(model: FlatModel, forget: Examples, settings: TRW) -> float:
    """Return the mean entropy of the targets on F in nats: 0 is a single class, log(K − 1) all the same."""
    gone, similarity = classes_to_forget(model, forget, settings)
    logits = logits_of(frozen(model), forget.images).double()
    q = tilted_targets(logits, forget.labels, similarity, gone, settings.beta)
    return float(torch.special.entr(q).sum(1).mean())


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: TRW,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model that has learned the tilted targets on F, and R as it is."""
    gone, similarity = classes_to_forget(model, forget, settings)
    student, teacher = model.copy(), frozen(model)
    parts = [part for part in (forget, retain) if part.size]
    if settings.order == "mixed":
        parts = [Examples(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))]
    total = settings.epochs * sum(
        num_batches(part, settings.batch_size, conditions.least_batch) for part in parts
    )
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    steps, draws = Steps(student, optimizer, conditions, total), Draws(generator, conditions)
    for part in parts * settings.epochs:
        for images, labels in draws.batches(part, settings.batch_size):
            targets = F.one_hot(labels, len(gone)).to(model.vector.dtype)
            rows = gone[labels].nonzero().flatten()
            if len(rows):
                logits = logits_of(teacher, images[rows])
                targets[rows] = tilted_targets(logits, labels[rows], similarity, gone, settings.beta)
            steps.take(F.cross_entropy(student.forward(images), targets))
    return student


METHOD = Method(
    name="trw",
    settings=TRW,
    unlearn=unlearn,
    source='"TRW", arXiv 2506.20893 (reconstruction)',
    needs=lambda settings: Needs(retained=False, statistics=True, last_layer="linear"),
    passes=lambda settings: Passes(forget=1.5 * settings.epochs, retain=settings.epochs),
    forgets=("class",),
)
