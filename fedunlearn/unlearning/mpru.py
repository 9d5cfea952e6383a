"""MPRU: an output filter that drops a class and shares out what it had; the model itself forgets nothing.

Formula: with p the model's softmax and f the class to forget, q_f = 0 and q_j = p_j + p_f R_fj, Σ_j R_fj = 1. R is
"proportional" (the softmax without the class), "uniform", "constant" (the mean output of f's examples, made to add up
to 1 without f) or "learnt" (a stochastic matrix that lowers the cross-entropy on ``calibration`` retained examples).
Several classes go one after the other, and what lands on one that is gone moves on
(:mod:`fedunlearn.unlearning.redistribution`), in one request or in several: the order does not matter. For "learnt",
those of one request are learnt together.

Source: "MPRU", arXiv 2510.26230. A reconstruction: the paper was not at hand; R, its variants and how they are
estimated are ours.
Deviations: the K outputs stay K. The filter gives log-probabilities; that of a dropped class is the logarithm of the
type's smallest normal number, so that losses and divergences stay finite. Outputs are read in evaluation mode,
without augmentation. The filter is a module with one buffer after the model; weights, and their number, are the
same bit for bit. Of several clients in one round the server makes one filter, which drops what any of theirs drops.
It drops a class for everyone: a class of one client, which others go on learning, is lost to them, too.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from fedunlearn.config.conditions import Count
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.output_filter import (
    filtered,
    log_probabilities,
    merged_filters,
    transfer_of,
    unfiltered,
)
from fedunlearn.unlearning.redistribution import LEARNING_STEPS, VARIANTS, drop


@dataclass(frozen=True)
class MPRU(Settings):
    """Hyper-parameters; "learnt" takes so many ``steps`` on at most ``calibration`` retained examples."""

    redistribution: Literal["proportional", "uniform", "constant", "learnt"] = "proportional"
    calibration: Count = 500
    steps: Count = LEARNING_STEPS


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: MPRU,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model behind a filter; one that is behind a filter already gets one for all classes together.

    Calibration examples are drawn from a generator seeded with this one's seed under the purpose ``calibration``.
    """
    transfer = transfer_of(model, forget)
    drawing = torch_generator(generator.initial_seed(), "calibration")
    chosen = torch.randperm(retain.size, generator=drawing)[: settings.calibration].to(retain.labels.device)
    variant = VARIANTS[settings.redistribution]
    nobody, some = forget.select(chosen[:0]), retain.select(chosen)
    read = {"nothing": nobody, "forget": forget, "retain": some}[variant.reads]
    log_p = log_probabilities(unfiltered(model), read, len(transfer))
    classes: list[int] = torch.unique(forget.labels).tolist()
    rows = variant.rows(log_p, read.labels.cpu().numpy(), classes, transfer, settings.steps)
    return filtered(model, drop(transfer, classes, rows))


METHOD = Method(
    name="mpru",
    settings=MPRU,
    unlearn=unlearn,
    source='"MPRU", arXiv 2510.26230 (reconstruction)',
    passes=lambda settings: Passes(  # of R at most so much: of the calibration examples
        forget=0.5 * (VARIANTS[settings.redistribution].reads == "forget"),
        retain=0.5 * (VARIANTS[settings.redistribution].reads == "retain"),
    ),
    needs=lambda settings: Needs(
        retained=VARIANTS[settings.redistribution].reads == "retain", statistics=True
    ),
    forgets=("class",),
    returns="filter",
    merge=merged_filters,
)
