"""The in-process engine: a Flower Grid whose nodes are calls of the client app in this process."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedunlearn.federation.compat import empty_state, ensure_task_identity, error_reply, stamp

SERVER_NODE = 1
FIRST_CLIENT_NODE = 2


class LocalGrid(Grid):
    """Run a Flower ``ClientApp`` for many virtual clients without leaving the process.

    Nothing is serialised: messages carry references, so whoever receives a tensor must not change it. With one
    worker, messages are answered one by one in the caller's thread while the caller consumes the replies; with
    more, worker threads answer them, longest first by the seconds each client took last time, and replies come
    in order of completion. What is computed does not depend on the number of workers.

    A client that raises answers with an error reply that holds its traceback.

    Parameters
    ----------
    client_app
        Called as ``client_app(message, context)``.
    num_clients
        Clients are numbered from 0; client k's context has ``node_config["partition-id"] == k``.
    run_config
        Scalars for every client's ``context.run_config``.
    workers
        Number of worker threads, ≥ 1.
    threads_per_client
        PyTorch's intra-op threads for each client's computation. Another number may give other bits. The
        setting is the process's: it holds for everything else in it too.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        run_config: Mapping[str, bool | float | int | str] | None = None,
        workers: int = 1,
        threads_per_client: int = 1,
    ) -> None:
        if num_clients < 1 or workers < 1 or threads_per_client < 1:
            raise ValueError("num_clients, workers and threads_per_client must each be at least 1")
        ensure_task_identity(node_id=SERVER_NODE)
        torch.set_num_threads(threads_per_client)
        self._app = client_app
        self._num_clients = num_clients
        self._run_config = dict(run_config or {})
        self._run = Run.create_empty(run_id=1)
        self._states: dict[int, RecordDict] = {}
        self._seconds: dict[int, float] = {}
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="client") if workers > 1 else None

    def close(self) -> None:
        """Stop the workers; messages not yet answered are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> LocalGrid:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- Flower's interface -------------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all node ids; every virtual client is always there."""
        return range(FIRST_CLIENT_NODE, FIRST_CLIENT_NODE + self._num_clients)

    def client_nodes(self) -> Mapping[int, int]:
        """Return client number → node id, which saves the strategy a query to every node."""
        return _ClientNodes(self._num_clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages and keep the replies for :meth:`pull_messages`."""
        messages = list(messages)
        replies = self.send_and_receive(messages)
        self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to the given messages, each once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield one reply per message, as they are done.

        ``timeout`` is for engines that can lose a node; here every reply is waited for.
        """
        stamped = [stamp(message, str(next(self._ids))) for message in messages]
        if self._pool is None:
            yield from map(self._answer, stamped)
            return
        stamped.sort(key=lambda m: self._seconds.get(m.metadata.dst_node_id, 0.0), reverse=True)
        futures = [self._pool.submit(self._answer, message) for message in stamped]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    # -- one client ---------------------------------------------------------------------------------------

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        client = node - FIRST_CLIENT_NODE
        if not 0 <= client < self._num_clients:
            return error_reply(message, f"there is no node {node}")
        started = time.perf_counter()
        state = self._states.get(client)
        context = Context(
            run_id=self._run.run_id,
            node_id=node,
            node_config={"partition-id": client, "num-partitions": self._num_clients},
            state=empty_state() if state is None else state,
            run_config=self._run_config,
        )
        try:
            reply = self._app(message, context)
        except Exception:
            # The traceback is the user's, not ours to swallow: the strategy reports it by client.
            return error_reply(message, traceback.format_exc())
        if context.state or state is not None:
            self._states[client] = context.state
        self._seconds[node] = time.perf_counter() - started
        return reply


class _ClientNodes(Mapping[int, int]):
    """Client number → node id by arithmetic: no dictionary of 100 000 entries."""

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients

    def __getitem__(self, client: int) -> int:
        if not 0 <= client < self._num_clients:
            raise KeyError(client)
        return FIRST_CLIENT_NODE + client

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._num_clients))

    def __len__(self) -> int:
        return self._num_clients
