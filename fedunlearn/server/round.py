"""What a method needs, is given in a round, and keeps between rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.models.layout import Layout
from fedunlearn.models.state import ModelState
from fedunlearn.randomness import derive_seed, torch_generator
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.history import History, Keeps
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
    keeps : Keeps or None
        What of earlier rounds the server is to keep for it, in ``history``. None: nothing.
    """

    individual: bool = False
    online: bool = True
    keeps: Keeps | None = None


@dataclass(frozen=True)
class RoundStart:
    """A round before anybody is sent anything, as :meth:`~fedunlearn.strategies.base.UnlearningStrategy.job` gets it.

    Attributes
    ----------
    plan : RoundPlan
    model : ModelState
        The global model; not to be changed.
    seed : int
        The training seed.
    architecture : Architecture
        What the model is made of.
    history : History
        What the server has kept of earlier rounds, where the method needs it.
    """

    plan: RoundPlan
    model: ModelState
    seed: int
    architecture: Architecture
    history: History

    @property
    def w(self) -> Tensor:
        """The global weights, shape ``(num_parameters,)``; not to be changed."""
        return self.model.vector

    @property
    def layout(self) -> Layout:
        """Where the model's parameters lie in the weights."""
        return self.architecture.layout

    def initial(self) -> ModelState:
        """Return the weights and buffers that the federation began with."""
        return self.architecture.initial(self.seed)

    def fresh(self, number: int) -> Tensor:
        """Return further random initial weights, of which there are as many as there are numbers from 0 on."""
        return self.architecture.initial(derive_seed(self.seed, "fresh-weights", number) >> 1).vector

    def generator(self) -> torch.Generator:
        """Return a generator of this round's own, on the processor: what is drawn depends on seed and round alone."""
        return torch_generator(self.seed, "strategy", self.plan.round)


@dataclass(frozen=True)
class Round(RoundStart):
    """A round's answers, as :meth:`fedunlearn.strategies.base.UnlearningStrategy.combine` gets them.

    Attributes
    ----------
    retained : BlockSum
        Σ n_k Δ_k, Σ n_k and the buffers of the clients that trained, as ``federation.aggregation`` sums them.
    updates : sequence of Contribution
        The same one by one, in client order, where the method needs them; else none.
    forgetting : sequence of Contribution
        Of the clients to forget, in client order; none in an ordinary round, and none where the forgetting was put
        off because one of them did not answer.
    forgets : bool
        Whether somebody is forgotten in this round: the plan forgets somebody, and it has not been put off.
    extras : Mapping[int, Mapping[str, Tensor]]
        Client → the tensors that came back beside its update, where a job asks for some.
    """

    retained: BlockSum
    updates: Sequence[Contribution] = ()
    forgetting: Sequence[Contribution] = ()
    forgets: bool = False
    extras: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def fedavg(self) -> Tensor:
        """Return w + Σ n_k Δ_k / Σ n_k as a new tensor, or a copy of w if nobody contributed."""
        return self.retained.step_from(self.w) if self.retained else self.w.clone()


def copied(state: State) -> dict[str, Value]:
    """Return a state that shares no memory with the method's."""
    return {name: v.detach().clone() if isinstance(v, Tensor) else deepcopy(v) for name, v in state.items()}


def tensors_of(state: State) -> dict[str, Tensor]:
    """Return the tensors of a state."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def others_of(state: State) -> dict[str, Value]:
    """Return all of a state that is no tensor."""
    return {name: value for name, value in state.items() if not isinstance(value, Tensor)}
