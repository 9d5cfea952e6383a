"""The direct way to train a round on Ray actors: one vector out per round, sums and single vectors back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray

from fedunlearn.federation.answers import Answers, RoundWork
from fedunlearn.federation.local_trainer import gathered
from fedunlearn.federation.ray_engine.dispatcher import Lost
from fedunlearn.federation.ray_engine.pool import ActorPool
from fedunlearn.federation.ray_engine.shared_buffers import Parcel, pack, unpack
from fedunlearn.federation.units import in_placing_order, units_of
from fedunlearn.federation.worker import Unit


class RayTrainer:
    """Train rounds on the actors of a pool.

    The round's weights and buffers are put into the object store once, and are gone from it when the round is
    over. Block sums come back as one vector each, for all their clients; updates that travel singly are read
    where they lie in the store.

    A unit that keeps killing its workers is done again client by client, so that only the one whose fault it is
    fails.

    Parameters
    ----------
    pool
        Its actors' duty has a routine.
    workers
        How many there are, for cutting rounds into units.
    batch_clients
        How many clients a worker trains in one stack.
    """

    def __init__(self, pool: ActorPool, *, workers: int, batch_clients: int = 1) -> None:
        self._pool = pool
        self._workers = workers
        self._batch_clients = batch_clients
        self._seconds: dict[int, float] = {}
        self._rounds = itertools.count(1)

    def train_round(self, work: RoundWork) -> Answers:
        """Train all clients of the round."""
        return gathered(work, self._done(work))

    def _done(self, work: RoundWork) -> Iterator[tuple[Unit, Answers]]:
        units = units_of(work, self._workers, self._batch_clients)
        if self._workers > 1:
            units = in_placing_order(units, self._seconds, work.state.num_bytes)
        number = next(self._rounds)
        # Workers are told who in each unit; the lists of clients stay here.
        weights = ray.put(pack(replace(work, config=dict(work.config), train=(), forget=())))

        def submit(actor: Any, unit: Unit) -> Any:
            return actor.train.remote(number, weights, unit)

        deadly: list[Unit] = []
        for unit, result in self._pool.run(units, submit, _named):
            if isinstance(result, Lost) and len(unit.clients) > 1:
                deadly.append(unit)
            else:
                yield unit, self._read(work, unit, result)
        alone = [Unit((client,), unit.kind, summed=False) for unit in deadly for client in unit.clients]
        for unit, result in self._pool.run(alone, submit, _named):
            yield unit, self._read(work, unit, result)

    def _read(self, work: RoundWork, unit: Unit, result: Parcel | Lost) -> Answers:
        if isinstance(result, Lost):
            (client,) = unit.clients
            return Answers([], failed={client: result.while_they(f"trained client {client}")})
        # Sums are added to, so they must be ours; single updates are only read.
        answers, seconds = unpack(result, device=work.state.vector.device, own=unit.summed)
        self._seconds |= dict.fromkeys(unit.clients, seconds / len(unit.clients))
        return answers  # type: ignore[no-any-return]


def _named(unit: Unit) -> str:
    """Return what to call a unit in messages."""
    first, *others = unit.clients
    return f"clients {first} to {others[-1]} ({len(unit.clients)} of them)" if others else f"client {first}"
