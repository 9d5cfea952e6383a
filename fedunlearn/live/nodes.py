"""Who serves which client, in a federation whose nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from logging import INFO, WARNING
from typing import Protocol

from flwr.app import MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn.federation.replies import Question, read

ANSWER_SECONDS = 120.0
"""After so long a node that was asked whom it serves is asked again."""
ASK_AGAIN_SECONDS = 30.0
"""So long a node that could not say whom it serves, or was refused, is left alone."""


class NodeRoster(Protocol):
    """Which node serves which client, on the server's authority."""

    def client_of_node(self, node_id: int) -> int | None:
        """Return the client that a node serves; None: it belongs to nobody."""
        ...


class Nodes:
    """The nodes that can be reached now, and the clients they serve.

    A node that has not been seen before is asked once which client it serves, and nobody waits for its answer:
    it takes part from the round after it. An engine that knows (``client_nodes()``) is not asked.

    Parameters
    ----------
    num_clients
        Clients are numbered from 0.
    roster
        With one, the node's id decides whom it serves, and its own answer must agree. None: it is believed.
    clock
        Seconds, from anywhere.
    """

    def __init__(
        self,
        num_clients: int,
        roster: NodeRoster | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_clients = num_clients
        self._roster = roster
        self._clock = clock
        self._client_of: dict[int, int] = {}  # node → client, of all that ever answered
        self._asked: dict[str, tuple[Question, float]] = {}  # message → what it asks, when
        self._not_before: dict[int, float] = {}  # node → when it may be asked again
        self._there: Mapping[int, int] = {}
        self.fixed = False

    @property
    def there(self) -> Mapping[int, int]:
        """Client number → node id, as of the last :meth:`refresh`."""
        return self._there

    @property
    def absent(self) -> frozenset[int]:
        """Clients that cannot be reached."""
        return frozenset() if self.fixed else frozenset(range(self._num_clients)).difference(self._there)

    @property
    def never_seen(self) -> frozenset[int]:
        """Clients that no node has ever said it serves."""
        known = self._client_of.values()
        return frozenset() if self.fixed else frozenset(range(self._num_clients)).difference(known)

    @property
    def answering(self) -> bool:
        """Whether a node has been asked whom it serves and may still answer."""
        return bool(self._asked)

    def refresh(self, grid: Grid) -> None:
        """Look who is there now; ask those who are new, and read what those asked before have answered."""
        if hasattr(grid, "client_nodes"):
            self._there, self.fixed = grid.client_nodes(), True
            return
        now = self._clock()
        present = set(grid.get_node_ids())
        self._read_answers(grid, now)
        self._ask(grid, present, now)
        there: dict[int, int] = {}
        for node in sorted(self._client_of.keys() & present):
            client = self._client_of[node]
            if client in there:
                self._refuse(node, f"says that it serves client {client}, which node {there[client]} serves")
            else:
                there[client] = node
        self._there = dict(sorted(there.items()))

    def _ask(self, grid: Grid, present: set[int], now: float) -> None:
        for message, (question, asked_at) in list(self._asked.items()):
            if question.node not in present or now - asked_at > ANSWER_SECONDS:
                del self._asked[message]
        waiting = {question.node for question, _ in self._asked.values()}
        new = [
            node
            for node in sorted(present - self._client_of.keys() - waiting)
            if now >= self._not_before.get(node, now)
        ]
        questions = [Question(-1, node, MessageType.QUERY, client=True) for node in new]
        messages = [question.message(RecordDict()) for question in questions]
        for message, question in zip(grid.push_messages(messages) if new else (), questions, strict=True):
            if message is not None:
                self._asked[message] = (question, now)

    def _read_answers(self, grid: Grid, now: float) -> None:
        if not self._asked:
            return
        for reply in grid.pull_messages(list(self._asked)):
            message = reply.metadata.reply_to_message_id
            question, _ = self._asked.get(message, (None, now))
            if question is None or reply.metadata.src_node_id != question.node:
                continue
            del self._asked[message]
            node, reading = question.node, read(reply, question)
            if (client := reading.client) is None:
                self._refuse(node, f"cannot say which client it serves: {reading.why}")
            elif (why := self._why_not(node, client)) is not None:
                self._refuse(node, why)
            else:
                self._client_of[node] = client
                log(INFO, "client %d is served by node %d", client, node)

    def _why_not(self, node: int, client: int) -> str | None:
        if not 0 <= client < self._num_clients:
            return f"says that it serves client {client}; clients are 0 to {self._num_clients - 1}"
        if self._roster is None:
            return None
        entered = self._roster.client_of_node(node)
        if entered is None:
            return f"says that it serves client {client}, but is not in the roster"
        return (
            None if entered == client else f"says that it serves client {client}; the roster says {entered}"
        )

    def _refuse(self, node: int, why: str) -> None:
        """Go on without a node, and say why; ask it again some time later."""
        self._client_of.pop(node, None)
        self._not_before[node] = self._clock() + ASK_AGAIN_SECONDS
        log(WARNING, "node %d is refused: it %s", node, why)
