"""What the Grids of virtual clients have in common: nodes by number, messages, what a client keeps."""

from __future__ import annotations

import itertools
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedunlearn.federation.answers import RoundTrainer
from fedunlearn.federation.compat import empty_state, ensure_task_identity, error_reply, stamp

SERVER_NODE = 1
FIRST_CLIENT_NODE = 2

RunConfig = Mapping[str, bool | float | int | str]


class VirtualGrid(Grid):
    """A Flower Grid with a node for every client number, always there; an engine says how nodes answer.

    Parameters
    ----------
    num_clients
        Clients are numbered from 0; client k's context has ``node_config["partition-id"] == k``.
    run_config
        Scalars for every client's ``context.run_config``.

    Attributes
    ----------
    trainer : RoundTrainer or None
        Trains whole rounds without a message per client, to the same bits.
    """

    trainer: RoundTrainer | None = None

    def __init__(self, num_clients: int, run_config: RunConfig | None = None) -> None:
        ensure_task_identity(node_id=SERVER_NODE)
        self._num_clients = num_clients
        self._run_config = dict(run_config or {})
        self._run = Run.create_empty(run_id=1)
        self._states: dict[int, RecordDict] = {}
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def close(self) -> None:
        """Stop the workers; messages not yet answered are dropped."""

    @abstractmethod
    def _answers(self, messages: list[Message]) -> Iterator[Message]:
        """Yield one reply per message."""

    def __enter__(self) -> Self:
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

        ``timeout`` is for engines that can lose a client; here every reply is waited for.
        """
        yield from self._answers([stamp(message, str(next(self._ids))) for message in messages])

    # -- one client ---------------------------------------------------------------------------------------

    def _client(self, message: Message) -> int | None:
        """Return the number of the client that a message is for; None if there is no such node."""
        client = message.metadata.dst_node_id - FIRST_CLIENT_NODE
        return client if 0 <= client < self._num_clients else None

    def _context(self, client: int) -> Context:
        """Return what a client is told beside the message, with what it has kept since the last one."""
        state = self._states.get(client)
        return Context(
            run_id=self._run.run_id,
            node_id=FIRST_CLIENT_NODE + client,
            node_config={"partition-id": client, "num-partitions": self._num_clients},
            state=empty_state() if state is None else state,
            run_config=self._run_config,
        )

    def _keep(self, client: int, state: RecordDict) -> None:
        """Keep a client's state for its next message."""
        if state or client in self._states:
            self._states[client] = state


def answer(client_app: Callable[[Message, Context], Message], message: Message, context: Context) -> Message:
    """Return a client's reply: an error reply that holds the traceback, if it raises."""
    try:
        return client_app(message, context)
    except Exception:
        # The traceback is the user's, not ours to swallow: the strategy reports it by client.
        return error_reply(message, traceback.format_exc())


def no_such_node(message: Message) -> Message:
    """Return the reply to a message for a node that does not exist."""
    return error_reply(message, f"there is no node {message.metadata.dst_node_id}")


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
