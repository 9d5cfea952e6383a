"""A layer after a model that drops classes from what it gives out; the model's weights know nothing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.contract import Examples
from fedunlearn.unlearning.redistribution import Floats, merged, nothing_dropped
from fedunlearn.unlearning.steps import frozen, logits_of, num_classes

BATCH = 256
"""Examples whose outputs are read at once."""
TRANSFER = "redistribution.transfer"
"""The one buffer that a :class:`Filtered` model has beside the model's own."""


class Redistribution(nn.Module):
    """The layer at the output: logits (n, K) → log-probabilities (n, K) without the dropped classes.

    It works on logarithms throughout, so that it does not matter how near to 1 a dropped class comes.

    Parameters
    ----------
    transfer : ndarray, shape (K, K)
        See :mod:`fedunlearn.unlearning.redistribution`. Kept as the buffer of that name.
    """

    transfer: Tensor
    nothing_to_draw = True
    """To :func:`fedunlearn.models.initialise.initialise`: there are no weights in here."""

    def __init__(self, transfer: Floats) -> None:
        super().__init__()
        self.register_buffer("transfer", torch.from_numpy(transfer.copy()))

    def forward(self, logits: Tensor) -> Tensor:
        """Return log q; the logits as they are while nothing has been dropped."""
        gone = self.transfer.diagonal() == 0
        if not gone.any():
            return logits
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
        for f in gone.nonzero().flatten().tolist():
            # Elsewhere the logarithm of the share is −inf, through which no gradient comes back.
            received = self.transfer[f] > 0
            arriving = log_p[:, f, None] + self.transfer[f].log().to(log_p.dtype)
            log_p = torch.where(received, torch.logaddexp(log_p, arriving.where(received, log_p)), log_p)
        left = log_p.masked_fill(gone, -torch.inf).log_softmax(1)
        return left.masked_fill(gone, float(np.log(torch.finfo(left.dtype).tiny)))


class Filtered(nn.Module):
    """A model, and the redistribution after it; in the mode of the model."""

    def __init__(self, model: nn.Module, redistribution: Redistribution) -> None:
        super().__init__()
        self.model = model
        self.redistribution = redistribution
        self.training = redistribution.training = model.training
        self.input_size: int = getattr(model, "input_size", 0)  # pixels that an evaluation counts a batch by

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (n, K) without the dropped classes."""
        found: Tensor = self.redistribution(self.model(images))
        return found


def log_probabilities(model: FlatModel, examples: Examples, count: int) -> Floats:
    """Return what a model says of examples in evaluation mode, (n, count), in float64."""
    teacher, parts = frozen(model), torch.split(examples.images, BATCH)
    logits = [logits_of(teacher, images).double().cpu() for images in parts if len(images)]
    return torch.cat([torch.empty(0, count, dtype=torch.float64), *logits]).log_softmax(1).numpy()


def filtered(model: FlatModel, transfer: Floats) -> FlatModel:
    """Return a copy of a model behind a filter; of one that is behind a filter already, behind this one instead."""
    redistribution = Redistribution(transfer)
    module = Filtered(deepcopy(unfiltered(model).module), redistribution)
    return FlatModel(module, dtype=model.vector.dtype, device=model.vector.device)


def unfiltered(model: FlatModel) -> FlatModel:
    """Return a copy of a model without its filter, if it has one."""
    module = model.module.model if isinstance(model.module, Filtered) else model.module
    return FlatModel(deepcopy(module), dtype=model.vector.dtype, device=model.vector.device)


def transfer_of(model: FlatModel, examples: Examples) -> Floats:
    """Return what a model's filter does; without one, nothing. The examples show how many classes there are."""
    if isinstance(model.module, Filtered):
        transfer: Floats = model.module.redistribution.transfer.double().cpu().numpy()
        return transfer
    return nothing_dropped(num_classes(model, examples))


def merged_filters(buffers: Sequence[Mapping[str, Tensor]], examples: Sequence[int]) -> dict[str, Tensor]:
    """Return the buffers of the filter that does what all of several clients' filters do.

    Parameters
    ----------
    buffers
        Of each client's filtered model, by name.
    examples
        How many each has forgotten, above 0.
    """
    transfers = [each[TRANSFER].double().cpu().numpy() for each in buffers]
    return {TRANSFER: torch.from_numpy(merged(transfers, examples)).to(buffers[0][TRANSFER])}


def with_slot(module: nn.Module, count: int) -> nn.Module:
    """Return a module of ``count`` classes behind a filter that drops nothing yet: what a federation filters has one.

    Whoever filters it then changes buffers of it, and no architecture.
    """
    return Filtered(module, Redistribution(nothing_dropped(count)))
