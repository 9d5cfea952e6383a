"""What a method needs, is given in a round, and keeps between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.models.layout import Layout
from fedunlearn.models.state import ModelState
from fedunlearn.randomness import torch_generator
from fedunlearn.server.plan import RoundPlan

Value = Tensor | bool | int | float | str | None | list["Value"] | dict[str, "Value"]
State = Mapping[str, Value]
"""A method's own: tensors by name at the top, and whatever JSON can say."""


@dataclass(frozen=True)
class Needs:
    """What a method cannot do without.

    Attributes
    ----------
    individual : bool
        The retained updates of a round one by one, in ``Round.updates``, beside their sum. The server then holds all
        of them at once.
    online : bool
        Whoever is to be forgotten takes part in it. A live federation lets a request wait until its clients can be
        reached; of a method that asks nothing of them, none waits.
    """

    individual: bool = False
    online: bool = True


@dataclass(frozen=True)
class Round:
    """A round's answers, as :meth:`fedunlearn.strategies.base.UnlearningStrategy.combine` gets them.

    Attributes
    ----------
    plan : RoundPlan
    model : ModelState
        What all clients of the round started from; not to be changed.
    retained : BlockSum
        Σ n_k Δ_k, Σ n_k and the buffers of the clients that trained, as ``federation.aggregation`` sums them.
    updates : sequence of Contribution
        The same one by one, in client order, where the method needs them; else none.
    forgetting : sequence of Contribution
        Of the clients to forget, in client order; none in an ordinary round, and none where the forgetting was put
        off because one of them did not answer.
    forgets : bool
        Whether somebody is forgotten in this round: the plan forgets somebody, and it has not been put off.
    seed : int
        The training seed.
    make_layout : callable
        Returns the layout of the weights.
    """

    plan: RoundPlan
    model: ModelState
    retained: BlockSum
    updates: Sequence[Contribution]
    forgetting: Sequence[Contribution]
    forgets: bool
    seed: int
    make_layout: Callable[[], Layout]

    @property
    def w(self) -> Tensor:
        """The weights that all clients of the round started from, shape ``(num_parameters,)``; not to be changed."""
        return self.model.vector

    @property
    def layout(self) -> Layout:
        """Where the model's parameters lie in the weights."""
        return self.make_layout()

    def fedavg(self) -> Tensor:
        """Return w + Σ n_k Δ_k / Σ n_k as a new tensor, or a copy of w if nobody contributed."""
        return self.retained.step_from(self.w) if self.retained else self.w.clone()

    def generator(self) -> torch.Generator:
        """Return a generator of this round's own, on the processor: what is drawn depends on seed and round alone."""
        return torch_generator(self.seed, "strategy", self.plan.round)


def copied(state: State) -> dict[str, Value]:
    """Return a state that shares no memory with the method's."""
    return {name: v.detach().clone() if isinstance(v, Tensor) else deepcopy(v) for name, v in state.items()}


def tensors_of(state: State) -> dict[str, Tensor]:
    """Return the tensors of a state."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def others_of(state: State) -> dict[str, Value]:
    """Return all of a state that is no tensor."""
    return {name: value for name, value in state.items() if not isinstance(value, Tensor)}
