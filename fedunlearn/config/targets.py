"""Which clients are forgotten, each set in a branch of its own: listed, every client in turn, or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fedunlearn.config.conditions import at_least, distinct, not_empty

Clients = Annotated[tuple[Annotated[int, at_least(0)], ...], not_empty, distinct]


@dataclass(frozen=True, kw_only=True)
class DrawnTargets:
    """``targets = {draw = 3, size = 1}``: three sets of one client, drawn by the experiment's seed."""

    draw: Annotated[int, at_least(1)]
    size: Annotated[int, at_least(1)] = 1


MOST_IN_TURN = 1000
"""So many clients may be forgotten one by one without being listed."""

Targets = Annotated[tuple[Clients, ...], not_empty] | Literal["each"] | DrawnTargets


def target_sets(targets: Targets, num_clients: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Return the sets of clients, ascending within a set, in the order listed or drawn.

    Drawn sets share no client where there are enough of them (draw · size ≤ num_clients). Otherwise each set
    is drawn from all clients, again until it differs from those before it, so that no branch is run twice;
    there must be ``draw`` different sets.
    """
    if targets == "each":
        return tuple((client,) for client in range(num_clients))
    if not isinstance(targets, DrawnTargets):
        return tuple(tuple(sorted(clients)) for clients in targets)
    from fedunlearn.randomness import numpy_generator

    rng = numpy_generator(seed, "targets")
    if targets.draw * targets.size <= num_clients:
        order = rng.permutation(num_clients)[: targets.draw * targets.size]
        return tuple(tuple(sorted(row)) for row in order.reshape(targets.draw, targets.size).tolist())
    sets: dict[tuple[int, ...], None] = {}
    while len(sets) < targets.draw:
        sets[tuple(sorted(rng.choice(num_clients, targets.size, replace=False).tolist()))] = None
    return tuple(sets)
