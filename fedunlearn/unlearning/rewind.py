"""Choosing among the checkpoints of an unlearning run: the one that errs on F as often as on data it never saw."""

from __future__ import annotations

import torch
from torch import Tensor

from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import Examples
from fedunlearn.unlearning.steps import frozen, logits_of


def split_held_out(
    retain: Examples, share: float, generator: torch.Generator, classes: Tensor
) -> tuple[Examples, Examples]:
    """Return held-out examples, at least one where R has two, and the rest of R in its order.

    One of the held-out examples is of ``classes`` where R has any of them: where none was drawn, the first of them in
    the drawn order takes the place of the last that was.
    """
    count = min(max(1, round(share * retain.size)), retain.size - 1)
    order = torch.randperm(retain.size, generator=generator).to(retain.labels.device)
    known = torch.isin(retain.labels[order], classes).nonzero().flatten()
    if count and len(known) and known[0] >= count:
        order[[count - 1, int(known[0])]] = order[[int(known[0]), count - 1]]
    return retain.select(order[:count]), retain.select(order[count:].sort().values)


def mistakes(model: FlatModel, examples: Examples, batch_size: int) -> Tensor:
    """Return per example 1 where the model is wrong and 0 where it is right, in evaluation mode, in float64."""
    probe = frozen(model)
    parts = torch.split(examples.images, batch_size)
    predicted = torch.cat([logits_of(probe, images).argmax(dim=1) for images in parts])
    return (predicted != examples.labels).double()


def matched_error(wrong: Tensor, labels: Tensor, mix: Tensor) -> float:
    """Return the share of mistakes at the label shares of ``mix``, over the classes that are in both."""
    classes = [label for label in sorted(set(mix.tolist())) if (labels == label).any()]
    shares = torch.stack([(mix == label).double().mean() for label in classes])
    errors = torch.stack([wrong[labels == label].mean() for label in classes])
    return float((shares * errors).sum() / shares.sum())


def nearest(errors: list[float], reference: float) -> int:
    """Return which error is nearest to the reference; of equally near ones the last."""
    return min(range(len(errors)), key=lambda i: (abs(errors[i] - reference), -i))


def rewound(checkpoints: list[FlatModel], forget: Examples, held_out: Examples, batch_size: int) -> FlatModel:
    """Return the checkpoint whose error on F is nearest to the last one's error on held-out data of F's label mix."""
    unseen = mistakes(checkpoints[-1], held_out, batch_size)
    reference = matched_error(unseen, held_out.labels, forget.labels)
    errors = [float(mistakes(checkpoint, forget, batch_size).mean()) for checkpoint in checkpoints]
    return checkpoints[nearest(errors, reference)]
