"""How many examples each batch of a pass has. The last, smaller one is kept; one rule for all training.

Where the model normalises single values over a batch (BatchNorm behind a linear layer or a global pooling), a batch
of one example has no variance. A last batch of one then joins the batch before it; of every other model it stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.plurals import counted


def num_batches(num_examples: int, batch_size: int, least: int = 1) -> int:
    """Return how many batches one pass over so many examples takes; ``least`` as of :func:`batch_sizes`."""
    number = math.ceil(num_examples / batch_size)
    return number - (number > 1 and 0 < num_examples % batch_size < least)


def batch_sizes(num_examples: int, batch_size: int, least: int = 1) -> list[int]:
    """Return the sizes of the batches of one pass.

    Parameters
    ----------
    least
        As :func:`least_batch` says: a last batch of fewer joins the one before it.

    Raises
    ------
    UserError
        There is no way to have ``least`` examples in every batch.
    """
    if not num_examples:
        return []
    if min(num_examples, batch_size) < least:
        why = f"of {counted(num_examples, 'example')} in batches of {batch_size}"
        raise UserError(
            f"no batch {why} has {least} examples, which the model's BatchNorm needs for a variance; "
            "use larger batches, more data, or a model with GroupNorm"
        )
    number = num_batches(num_examples, batch_size, least)
    return [batch_size] * (number - 1) + [num_examples - batch_size * (number - 1)]


def least_batch(model: FlatModel, images: Tensor) -> int:
    """Return the fewest examples that a model can be trained on at once: 2 with BatchNorm over single values, else 1.

    Parameters
    ----------
    model
        Is only looked at.
    images : Tensor, shape (n, ...)
        Of the kind that it is trained on, at least one.
    """
    if not any(isinstance(layer, _BatchNorm) for layer in model.module.modules()):
        return 1
    probe = model.copy().module.eval()
    single: list[bool] = []

    def look(layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (values,) = inputs
        single.append(values[0].numel() == values.shape[1])

    for layer in probe.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_pre_hook(look)
    with torch.no_grad():
        # Two: a layer without running statistics takes those of the batch in evaluation, too.
        probe(images[:1].expand(2, *images.shape[1:]))
    return 2 if any(single) else 1
