"""The in-process engine: a Flower Grid whose nodes are calls of the client app in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from fedunlearn.federation.client_trainer import RoutineFactory
from fedunlearn.federation.grid import FIRST_CLIENT_NODE as FIRST_CLIENT_NODE
from fedunlearn.federation.grid import SERVER_NODE as SERVER_NODE
from fedunlearn.federation.grid import RunConfig, VirtualGrid, answer, no_such_node
from fedunlearn.federation.local_trainer import LocalTrainer


class LocalGrid(VirtualGrid):
    """Run a Flower ``ClientApp`` for many virtual clients without leaving the process.

    Nothing is serialised: messages carry references, so whoever receives a tensor must not change it. With one
    worker, messages are answered one by one in the caller's thread while the caller consumes the replies; with
    more, worker threads answer them, longest first by the seconds each client took last time, and replies come
    in order of completion. What is computed does not depend on the number of workers.

    A client that raises answers with an error reply that holds its traceback.

    With a ``routine``, the grid's ``trainer`` trains whole rounds without a message per client, to the same
    bits (see :class:`~fedunlearn.federation.local_trainer.LocalTrainer`); messages are answered as before.

    Parameters
    ----------
    client_app
        Called as ``client_app(message, context)``.
    num_clients, run_config
        See :class:`~fedunlearn.federation.grid.VirtualGrid`.
    workers
        Number of worker threads, ≥ 1.
    threads_per_client
        PyTorch's intra-op threads for each client's computation. Another number may give other bits. The
        setting is the process's: it holds for everything else in it too.
    routine
        Makes a worker's routine: what the client app does, without the messages.
    batch_clients
        How many clients the trainer trains in one stack, ≥ 1.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        run_config: RunConfig | None = None,
        workers: int = 1,
        threads_per_client: int = 1,
        routine: RoutineFactory | None = None,
        batch_clients: int = 1,
    ) -> None:
        if min(num_clients, workers, threads_per_client, batch_clients) < 1:
            raise ValueError(
                "num_clients, workers, threads_per_client and batch_clients must each be at least 1"
            )
        super().__init__(num_clients, run_config)
        torch.set_num_threads(threads_per_client)
        self._app = client_app
        self._seconds: dict[int, float] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="client") if workers > 1 else None
        self.trainer: LocalTrainer | None = None
        if routine is not None:
            self.trainer = LocalTrainer(routine, workers=workers, batch_clients=batch_clients)

    def close(self) -> None:
        """Stop the workers; messages not yet answered are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self.trainer is not None:
            self.trainer.close()

    def _answers(self, messages: list[Message]) -> Iterator[Message]:
        if self._pool is None:
            yield from map(self._answer, messages)
            return
        messages.sort(key=lambda m: self._seconds.get(m.metadata.dst_node_id, 0.0), reverse=True)
        futures = [self._pool.submit(self._answer, message) for message in messages]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def _answer(self, message: Message) -> Message:
        client = self._client(message)
        if client is None:
            return no_such_node(message)
        started = time.perf_counter()
        context = self._context(client)
        reply = answer(self._app, message, context)
        if not reply.has_error():
            self._keep(client, context.state)
            self._seconds[message.metadata.dst_node_id] = time.perf_counter() - started
        return reply
