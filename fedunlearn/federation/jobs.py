"""What clients do in a round instead of ordinary training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedunlearn.federation.hosted_routine import Chosen

ROUTINE, EPOCHS, LR, RETURNS = "routine", "epochs", "lr", "returns"
"""Entries of a config: what a client runs instead of training, or how many epochs it trains for; its learning rate;
and, as JSON, the names and lengths of the tensors that it sends back beside the update."""


@dataclass(frozen=True)
class Job:
    """What one kind of a round's clients does: those that train, or those to forget.

    Attributes
    ----------
    routine : Chosen or None
        A centralised method and its hyper-parameters, run instead of training on the data that the client works with
        in this round; its result is what the update leads to. None: ordinary training.
    epochs : int or None
        Local epochs of ordinary training. None: the experiment's.
    lr : float or None
        Learning rate of ordinary training. None: the round's.
    start : Tensor or None
        The weights that these clients start from, shape ``(num_parameters,)``; their updates are measured from there.
        None: the global weights.
    tensors : Mapping[str, Tensor]
        Sent along to every one of them: float32, one-dimensional, by names that the routine looks up in
        ``Conditions.tensors``.
    own : Mapping[int, Mapping[str, Tensor]]
        Client, or part of a client's data as the plan numbers it → further ones, sent to it alone; of one name they
        take the place of those for all.
    returns : Mapping[str, int]
        Tensors that each of them sends back beside its update: name → length. The routine leaves them in
        ``Conditions.results``; they end up in ``Round.extras``.

    No tensor is copied on the way to clients in the same process, and nobody may change one.

    Raises
    ------
    ValueError
        It says two things at once, or what no client can do; a tensor is of another kind.
    """

    routine: Chosen | None = None
    epochs: int | None = None
    lr: float | None = None
    start: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    own: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    returns: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.routine is not None and (self.epochs is not None or self.lr is not None):
            raise ValueError(
                "a job with a routine: epochs and lr are of ordinary training; its settings say as much"
            )
        if self.routine is None and (self.tensors or self.own or self.returns):
            raise ValueError("a job without a routine: nobody would look at tensors, or return any")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"a job of {self.epochs} epochs: must be at least 1")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"a job with lr = {self.lr}: must be > 0 and finite")
        if wrong := [name for name, length in self.returns.items() if length < 1]:
            raise ValueError(
                f"a job that returns {wrong[0]!r} of length {self.returns[wrong[0]]}: must be at least 1"
            )
        for tensors in (self.tensors, *self.own.values()):
            if why := not_flat(tensors):
                raise ValueError(f"a job's {why}")

    @cached_property
    def told(self) -> Mapping[str, Any]:
        """What clients are told of it beside the weights and tensors, as entries of a round's config."""
        told: dict[str, Any] = {}
        if self.routine is not None:
            told[ROUTINE] = self.routine.dumps()
        if self.epochs is not None:
            told[EPOCHS] = self.epochs
        if self.lr is not None:
            told[LR] = self.lr
        if self.returns:
            told[RETURNS] = json.dumps(dict(self.returns), sort_keys=True)
        return told

    def sent_to(self, number: int) -> Mapping[str, Tensor]:
        """Return the tensors that are sent to one client."""
        own = self.own.get(number)
        return self.tensors if own is None else {**self.tensors, **own}


def not_flat(tensors: Mapping[str, Tensor]) -> str:
    """Say which of a job's tensors is no vector of float32, or return an empty string."""
    for name, tensor in tensors.items():
        if tensor.dim() != 1 or tensor.dtype != torch.float32:
            return (
                f"tensor {name!r} of shape {tuple(tensor.shape)} and {tensor.dtype}: must be one-dimensional, "
                "of torch.float32"
            )
    return ""
