"""What a method decides about a round, and what it may look at to decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedunlearn.randomness import numpy_generator


@dataclass(frozen=True)
class RoundPlan:
    """Who does what in one round. Committed to the ledger before anything is sent, and replayed from there.

    Attributes
    ----------
    round : int
        Counted from 1.
    train : tuple[int, ...]
        Clients that train and are retained, ascending.
    forget : tuple[int, ...]
        Clients whose forgetting happens in this round, ascending.
    requests : tuple[str, ...]
        Ids of the forget requests that this round serves; the base class fills them in.
    stored : Mapping[int, int]
        Of the clients to forget, those that cannot be reached and are forgotten by the update that the server
        has stored of them → the round of that update. Live federations only.
    asks : bool
        Whether the clients to forget take part in it. If not, they are sent nothing, and it waits for nobody.
    without : Mapping[int, tuple[int, ...]]
        Client that trains, or client or part that is forgotten → parts of its data that it leaves out: they have been
        forgotten, or are about to be. The base class fills them in.
    completes : bool
        Whether the forgetting of the plan's requests is complete with this round. If not, the next round goes on with
        it: the same requests, and the same clients to forget. Whatever else is asked for waits until then.
    step : int
        How many rounds of this unlearning are behind. The base class fills it in.

    Numbers from ``num_clients`` on are parts of clients' data (:mod:`fedunlearn.parts`); parts are forgotten, whole
    clients train.
    """

    round: int
    train: tuple[int, ...]
    forget: tuple[int, ...] = ()
    requests: tuple[str, ...] = ()
    stored: Mapping[int, int] = field(default_factory=dict)
    without: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    asks: bool = True
    completes: bool = True
    step: int = 0

    @property
    def several(self) -> bool:
        """Whether it is one of several rounds of an unlearning."""
        return self.step > 0 or not self.completes

    @property
    def asked_to_forget(self) -> tuple[int, ...]:
        """Clients that take part in their own forgetting: all but those forgotten by a stored update, or nobody."""
        return tuple(k for k in self.forget if k not in self.stored) if self.asks else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types."""
        plan: dict[str, Any] = {
            "round": self.round,
            "train": list(self.train),
            "forget": list(self.forget),
            "requests": list(self.requests),
        }
        if self.stored:
            plan["stored"] = {str(client): round for client, round in self.stored.items()}
        if not self.asks:
            plan["asks"] = False
        if not self.completes:
            plan["completes"] = False
        if self.step:
            plan["step"] = self.step
        if self.without:
            plan["without"] = {str(number): list(parts) for number, parts in self.without.items()}
        return plan

    @classmethod
    def from_dict(cls, plan: dict[str, Any]) -> RoundPlan:
        """Inverse of :meth:`to_dict`."""
        stored = {int(client): int(round) for client, round in plan.get("stored", {}).items()}
        without = {int(number): tuple(parts) for number, parts in plan.get("without", {}).items()}
        return cls(
            int(plan["round"]),
            tuple(plan["train"]),
            tuple(plan["forget"]),
            tuple(plan["requests"]),
            stored,
            without,
            asks=bool(plan.get("asks", True)),
            completes=bool(plan.get("completes", True)),
            step=int(plan.get("step", 0)),
        )


@dataclass(frozen=True)
class Situation:
    """What :meth:`fedunlearn.strategies.base.UnlearningStrategy.plan` sees of the federation.

    Attributes
    ----------
    round : int
        The round to plan, counted from 1.
    num_clients : int
        All clients there ever were, numbered from 0.
    slots : int
        How many clients take part in a round: ``max(1, round(participation · num_clients))``.
    gone : frozenset[int]
        Clients that must not train, and parts of clients' data that must not be trained on: forgotten, or named by
        a request that is due.
    to_forget : tuple[int, ...]
        Clients, and parts, to forget in this round (all requests that are due), ascending. The same in every round of
        an unlearning that takes several.
    seed : int
        Training seed; sampling derives from it and the round.
    absent : frozenset[int]
        Clients that cannot be reached now; never sampled.
    step : int
        How many rounds of the unlearning at hand are behind; 0 in an ordinary round.
    """

    round: int
    num_clients: int
    slots: int
    gone: frozenset[int]
    to_forget: tuple[int, ...]
    seed: int
    absent: frozenset[int] = frozenset()
    step: int = 0

    def sample(self, slots: int, *, also_without: Iterable[int] = ()) -> tuple[int, ...]:
        """Draw ``slots`` clients without replacement from those that may train, or take all if they are fewer.

        The draw depends on (seed, round, the clients that may train) and on nothing that happened before.
        """
        gone = np.array(sorted(self.gone.union(self.absent, also_without)), dtype=np.int64)
        gone = gone[gone < self.num_clients]  # who has forgotten a part of its data trains on the others
        left = self.num_clients - len(gone)
        if slots < left:
            generator = numpy_generator(self.seed, "sampling", self.round)
            places = np.sort(generator.choice(left, size=slots, replace=False))
        else:
            places = np.arange(left)
        # Place p among those that may train is client p, or as many further on as are gone up to there: counted
        # so, a round costs what it samples, not what the federation numbers.
        before = np.searchsorted(gone - np.arange(len(gone)), places, side="right")
        return tuple((places + before).tolist())

    def fedavg(self) -> RoundPlan:
        """Return the plan of an ordinary round of federated averaging."""
        return RoundPlan(self.round, self.sample(self.slots))
