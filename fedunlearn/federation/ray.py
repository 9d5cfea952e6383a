"""The Ray engine: a Flower Grid whose nodes live in Ray actors, on this machine or all over a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedunlearn.federation.client_trainer import RoutineFactory
from fedunlearn.federation.compat import error_reply
from fedunlearn.federation.grid import RunConfig, VirtualGrid, no_such_node
from fedunlearn.federation.ray_engine.actor import Duty
from fedunlearn.federation.ray_engine.cluster import Cluster, Need
from fedunlearn.federation.ray_engine.dispatcher import Lost
from fedunlearn.federation.ray_engine.pool import ActorPool, pack_duty
from fedunlearn.federation.ray_engine.shared_buffers import pack, unpack
from fedunlearn.federation.ray_engine.trainer import RayTrainer


class RayGrid(VirtualGrid):
    """Run a Flower ``ClientApp`` for many virtual clients in Ray actors, one per slot.

    Model and data stay with each actor. With a ``routine``, the grid's ``trainer`` trains whole rounds (see
    :class:`~fedunlearn.federation.ray_engine.trainer.RayTrainer`), on CPUs to the bits of
    :class:`~fedunlearn.federation.local.LocalGrid`; messages are answered as there, each client's state being kept
    here and sent along.

    An actor that dies is replaced, and what it was doing is done again; if there is no room for another, the
    others go on. A client that raises answers with an error reply that holds its traceback, and its actor lives
    on.

    Parameters
    ----------
    client_app
        A reference such as "fedunlearn.clients.app:app", imported in the actors, or an app that can be pickled.
    num_clients, run_config
        See :class:`~fedunlearn.federation.grid.VirtualGrid`.
    workers
        Number of actors, ≥ 1; None: as many as fit where there is room now.
    threads_per_client
        PyTorch's intra-op threads for each client's computation. Another number may give other bits.
    routine
        Makes a worker's routine, in the actor. It is pickled; tensors and arrays in it, such as the clients'
        data, lie in the object store once per machine, and all actors there use the same memory.
    batch_clients
        How many clients the trainer trains in one stack, ≥ 1.
    address
        Of a running cluster, which must be able to import what this process imports and is left running. None:
        Ray is started on this machine and stopped by :meth:`close`, or used as it is if this process has already
        called ``ray.init``.
    cpus_per_worker, gpus_per_worker
        What an actor takes of the cluster. It sees the GPUs it was given and no other.

    Raises
    ------
    UserError
        There is no cluster at the address, or no room in it; or the user's input keeps the routine from being
        made.
    RunError
        The actors do not start, or the routine cannot be made; the message holds the traceback.
    """

    def __init__(
        self,
        client_app: str | ClientApp,
        num_clients: int,
        *,
        run_config: RunConfig | None = None,
        workers: int | None = None,
        threads_per_client: int = 1,
        routine: RoutineFactory | None = None,
        batch_clients: int = 1,
        address: str | None = None,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
    ) -> None:
        if min(num_clients, 1 if workers is None else workers, threads_per_client, batch_clients) < 1:
            raise ValueError(
                "num_clients, workers, threads_per_client and batch_clients must each be at least 1"
            )
        if cpus_per_worker <= 0 or gpus_per_worker < 0:
            raise ValueError("cpus_per_worker must be more than 0, gpus_per_worker at least 0")
        super().__init__(num_clients, run_config)
        duty = pack_duty(Duty(client_app, routine, batch_clients))
        need = Need(cpus_per_worker, gpus_per_worker)
        self._cluster = Cluster(address, need, workers, content_bytes=duty.num_bytes)
        try:
            self._pool = ActorPool(self._cluster, duty, threads_per_client)
        except BaseException:
            self._cluster.close()
            raise
        self.workers = self._cluster.workers
        self.trainer: RayTrainer | None = None
        if routine is not None:
            self.trainer = RayTrainer(self._pool, workers=self.workers, batch_clients=batch_clients)
        self._seconds: dict[int, float] = {}

    def close(self) -> None:
        """End the actors, and Ray if it was started for them; messages not yet answered are dropped."""
        self._pool.close()
        self._cluster.close()

    def _answers(self, messages: list[Message]) -> Iterator[Message]:
        errands = []
        for message in messages:
            client = self._client(message)
            if client is None:
                yield no_such_node(message)
            else:
                errands.append(_Errand(client, message, self._context(client)))
        errands.sort(key=lambda errand: self._seconds.get(errand.client, 0.0), reverse=True)
        shelf = _Shelf()
        for errand, result in self._pool.run(errands, shelf.submit):
            if isinstance(result, Lost):
                did = f"answered for client {errand.client}"
                yield error_reply(errand.message, result.while_they(did))
                continue
            reply, state, seconds = unpack(result)
            if not reply.has_error():
                self._keep(errand.client, state)
                self._seconds[errand.client] = seconds
            yield reply


@dataclass(frozen=True, eq=False)
class _Errand:
    """A message on its way to an actor."""

    client: int
    message: Message
    context: Context

    def __str__(self) -> str:
        return f"a message to client {self.client}"


class _Shelf:
    """The array records of a batch of messages: what many messages share is put into the object store once."""

    def __init__(self) -> None:
        self._parcels: dict[
            int, tuple[ArrayRecord, Any]
        ] = {}  # by id; the record is kept so that it stays its

    def submit(self, actor: Any, errand: _Errand) -> Any:
        """Hand a message over."""
        content = errand.message.content if errand.message.has_content() else {}
        records = [record for record in content.values() if isinstance(record, ArrayRecord)]
        apart = {id(record): place for place, record in enumerate(records)}
        parcel = pack((errand.message, errand.context), apart=apart)
        return actor.answer.remote(parcel, *map(self._reference, records))

    def _reference(self, record: ArrayRecord) -> Any:
        if id(record) not in self._parcels:
            self._parcels[id(record)] = (record, ray.put(pack(record)))
        return self._parcels[id(record)][1]
