"""Cutting a round into units of work: no cut changes a bit, so only time and memory decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from fedunlearn.federation.answers import FORGET, TRAIN, RoundWork
from fedunlearn.federation.sums import BLOCK
from fedunlearn.federation.worker import Unit

UNITS_PER_WORKER = 4
"""So many units each, at least: fewer leave workers idle at the end of a round."""
OVERTAKING_BYTES = 1 << 30
"""Updates that may wait for one with a smaller number; beyond, units go out in client order."""


def units_of(work: RoundWork, workers: int, batch_clients: int = 1) -> list[Unit]:
    """Return the round's units in client order, first those that train, then those that forget.

    A block of clients is summed where it is trained if there are blocks enough to keep all workers busy; else
    its updates travel singly and are added up where they arrive. A client to forget is always a unit of its
    own.
    """
    forget = [Unit((client,), FORGET, summed=False) for client in work.forget]
    blocks = [tuple(block) for _, block in groupby(work.train, key=lambda client: client // BLOCK)]
    if not work.individually and (workers == 1 or len(blocks) >= UNITS_PER_WORKER * workers):
        groups = _grouped(blocks, batch_clients) if batch_clients > 1 else blocks
        return [Unit(clients) for clients in groups] + forget
    share = max(1, len(work.train) // (UNITS_PER_WORKER * workers))
    size = share if batch_clients == 1 else max(1, min(batch_clients, -(-len(work.train) // workers)))
    train = [Unit(work.train[at : at + size], TRAIN, summed=False) for at in range(0, len(work.train), size)]
    return train + forget


def _grouped(blocks: Sequence[tuple[int, ...]], batch_clients: int) -> list[tuple[int, ...]]:
    """Join consecutive blocks until a full stack of clients comes together."""
    groups: list[tuple[int, ...]] = []
    for block in blocks:
        if groups and len(groups[-1]) < batch_clients:
            groups[-1] += block
        else:
            groups.append(block)
    return groups


def in_placing_order(units: Sequence[Unit], seconds: Mapping[int, float], vector_bytes: int) -> list[Unit]:
    """Return the units in the order in which they should be started: longest first.

    Parameters
    ----------
    seconds
        Client → how long it took last time; an unknown one counts as the mean of the known.
    vector_bytes
        Size of one update. If all of them together are more than :data:`OVERTAKING_BYTES`, the order stays
        that of the clients, so that updates are added up as they come instead of waiting for each other.
    """
    single = [unit for unit in units if not unit.summed]
    if vector_bytes * sum(len(unit.clients) for unit in single) > OVERTAKING_BYTES:
        return list(units)
    usual = sum(seconds.values()) / len(seconds) if seconds else 1.0
    return sorted(units, key=lambda unit: -sum(seconds.get(client, usual) for client in unit.clients))
