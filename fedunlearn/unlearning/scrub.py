"""SCRUB: a student disobeys its frozen teacher on F, and obeys it on R.

Formula: in each of the first ``msteps`` epochs a pass over F that maximises KL(teacher ‖ student); in every epoch a
pass over R that minimises γ·CE + α·KL(teacher ‖ student). KL at temperature τ, times τ².
With ``rewind`` (SCRUB+R) a checkpoint is kept of every epoch; the error of the last one on held-out examples of F's
label mix is the reference, and the checkpoint whose error on F is nearest to it is the result.

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023; defaults as in the code
(meghdadk/SCRUB, large-scale notebook). The rewind is a reconstruction: the code has none.
Deviations: the learning rate is constant (the code divides it by 10 from the fourth epoch on).
Held-out examples are ``conditions.held_out``; without them the generator takes ``held_out_share`` of R, which is then
not trained on (purpose ``held-out``), one of F's classes among them. Their error is counted per class and averaged
with F's label shares, over the classes that have held-out examples; where none of F's has, as with a whole class and
no ``held_out``, rewinding is refused. Of checkpoints equally near the latest is taken. The paper's held-out examples
are data that no model has trained on. A part of R is not: the original has seen it, so that the reference is lower
than it would be, and the rewinding stops where F is known better. Clients, who have no other data, take this part, on
pooled data, too.
At the very first step student and teacher agree, so that the first pass over F has no gradient but that of dropout
and batch statistics: with a single epoch SCRUB hardly differs from fine-tuning. BatchNorm: the ascent, too, runs in
training mode, so the student's running statistics see F; the teacher's never change.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from fedunlearn.config.conditions import Count, CountOrZero, Momentum, NonNegative, Rate, above, below, both
from fedunlearn.config.settings import Settings
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.distillation import divergence
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.rewind import rewound, split_held_out
from fedunlearn.unlearning.steps import Draws, Steps, frozen, logits_of, num_batches, sgd


@dataclass(frozen=True)
class Scrub(Settings):
    """Hyper-parameters; ``msteps`` is the number of epochs with an ascent."""

    epochs: Count = 3
    msteps: CountOrZero = 2
    alpha: NonNegative = 0.001
    gamma: NonNegative = 0.99
    temperature: Rate = 4.0
    batch_size: Count = 128
    forget_batch_size: Count = 32
    lr: Rate = 5e-4
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    rewind: bool = False
    held_out_share: Annotated[float, both(above(0), below(1))] = 0.1


def held_out_of(
    forget: Examples, retain: Examples, settings: Scrub, generator: torch.Generator, conditions: Conditions
) -> tuple[Examples, Examples]:
    """Return the examples that tell how far to rewind, and those of R to train on.

    Raises
    ------
    UserError
        None of the held-out examples is of F's classes.
    """
    held_out = conditions.held_out
    if held_out is None:
        drawing = torch_generator(generator.initial_seed(), "held-out")
        held_out, retain = split_held_out(retain, settings.held_out_share, drawing, forget.labels)
    if not torch.isin(held_out.labels, forget.labels).any():
        raise UserError("scrub: rewind = true needs held-out examples of F's classes, and there are none")
    return held_out, retain


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: Scrub,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the student, or with ``rewind`` the best of its checkpoints."""
    if settings.rewind:
        held_out, retain = held_out_of(forget, retain, settings, generator, conditions)
    student, teacher, size, T = model.copy(), frozen(model), settings.batch_size, settings.temperature
    least = conditions.least_batch
    ascents = min(settings.msteps, settings.epochs) * num_batches(forget, settings.forget_batch_size, least)
    optimizer = sgd(student, settings.lr, settings.momentum, settings.weight_decay)
    steps = Steps(
        student, optimizer, conditions, ascents + settings.epochs * num_batches(retain, size, least)
    )
    draws, checkpoints = Draws(generator, conditions), []
    for epoch in range(settings.epochs):
        if epoch < settings.msteps:
            for images, _ in draws.batches(forget, settings.forget_batch_size):
                steps.take(-divergence(student.forward(images), logits_of(teacher, images), T))
        for images, labels in draws.batches(retain, size):
            logits = student.forward(images)
            obedience = divergence(logits, logits_of(teacher, images), T)
            steps.take(settings.gamma * conditions.loss(logits, labels) + settings.alpha * obedience)
        if settings.rewind:
            checkpoints.append(student.copy())
    return rewound(checkpoints, forget, held_out, size) if checkpoints else student


def passes(settings: Scrub) -> Passes:
    """Return what it costs: the teacher goes along forward, and rewinding reads F once per epoch."""
    ascents, rewinds = min(settings.msteps, settings.epochs), settings.epochs if settings.rewind else 0
    return Passes(forget=1.5 * ascents + 0.5 * rewinds, retain=1.5 * settings.epochs)


METHOD = Method(
    name="scrub",
    settings=Scrub,
    unlearn=unlearn,
    source="Kurmanji et al., NeurIPS 2023",
    needs=lambda settings: Needs(statistics=True, retained_of_forgotten_classes=settings.rewind),
    passes=passes,
)
