"""A deployment's Grid: each reply is fetched and put together by itself, and is from whom the SuperLink says.

Flower's own Grid (1.41) fetches replies together, and a node can use that. One reply that cannot be put together
loses all the others and ends the server; one whose objects are announced and held back is waited for, for up to two
hours; nothing bounds how large one may be; and whom it is from is read from the reply itself, which a node writes as
it likes. Here each of these is an error of that one node's.

What this module uses of Flower's internals: the Runtime API's client of ``HttpGrid``, and how objects are fetched and
put together (``flwr.supercore.inflatable``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from logging import WARNING
from math import prod
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from fedunlearn.federation.answers import REFUSED

POLL_SECONDS = 3.0
"""How often replies are looked for, as Flower does."""
SPARE_BYTES = 1 << 20
"""By which a reply may be larger than the arrays of what it answers."""
MOST_OBJECTS = 10_000
"""Objects of one reply: some ten, and one for each buffer and every twenty megabytes."""
LONGEST_UPLOAD = 7200.0
"""Seconds after which a reply that is still not complete is given up."""


def superlink_grid(grid: Grid) -> Grid:
    """Return the grid to use in the place of Flower's: another one only where replies come from a SuperLink."""
    return SuperLinkGrid(grid) if isinstance(grid, HttpGrid) else grid


class SuperLinkGrid(Grid):
    """Flower's ``HttpGrid``, of which no node can stop the server, hold it up, or speak for another.

    Parameters
    ----------
    inner
        Sends, and knows the nodes.
    clock, pause
        Seconds from anywhere, and a way to wait.
    """

    def __init__(
        self,
        inner: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._pause = pause
        self._most_bytes: dict[str, int] = {}  # message sent → what its reply may come to
        self._coming: dict[str, _Upload] = {}  # message sent → its reply, so far

    # -- Flower's interface -------------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        run: Run = self._inner.run
        return run

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
        """Return the ids of the nodes that are there."""
        found: Iterable[int] = self._inner.get_node_ids()
        return found

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; of one that cannot be sent, say because its node has just left, the id is None."""
        messages = list(messages)
        names = list(self._inner.push_messages(messages)) if messages else []
        if len(names) != len(messages):  # too large to be sent at all
            names = [None] * len(messages)
        for name, message in zip(names, messages, strict=True):
            if name is not None:
                self._most_bytes[name] = SPARE_BYTES + _array_bytes(message.content)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return those replies to the given messages that are complete, each once; one at fault is an error."""
        asked = {name for name in message_ids if name is not None}
        # Each is handed over once: of one that is not complete yet, the SuperLink knows nothing any more.
        if new := asked - self._coming.keys():
            response = self._inner._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=new))
            for proto, tree in zip(response.messages_list, response.message_object_trees, strict=True):
                if (name := proto.metadata.reply_to_message_id) in new:
                    most = self._most_bytes.get(name, SPARE_BYTES)
                    self._coming[name] = _Upload(proto, tree, most, self._clock())
        found = []
        for name in asked & self._coming.keys():
            if (reply := self._fetched(self._coming[name])) is not None:
                del self._coming[name]
                self._most_bytes.pop(name, None)
                found.append(reply)
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and return the replies that are complete in time."""
        waiting = {name for name in self.push_messages(messages) if name is not None}
        del messages
        until = None if timeout is None else self._clock() + timeout
        found: list[Message] = []
        while waiting and (until is None or self._clock() < until):
            replies = self.pull_messages(waiting)
            found += replies
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            if waiting:
                self._pause(POLL_SECONDS)
        for name in waiting:
            self._coming.pop(name, None)
            self._most_bytes.pop(name, None)
        return found

    # -- one reply ----------------------------------------------------------------------------------------

    def _fetched(self, upload: _Upload) -> Message | None:
        """Return a reply with all its objects; None as long as some of them have not been uploaded."""
        try:
            if not upload.fetch(self._pull_function()):
                if self._clock() - upload.since < LONGEST_UPLOAD:
                    return None
                raise _UnusableError("its upload was never completed")
            reply = _put_together(upload.proto, upload.contents)
        except Exception as error:
            # Whatever a node's bytes make of Flower's decoding: it is not only one kind of exception.
            why = str(error) if isinstance(error, _UnusableError) else type(error).__name__
            log(
                WARNING,
                "node %d: its reply cannot be put together: %s",
                upload.proto.metadata.src_node_id,
                why,
            )
            reply = _error(upload.proto, f"{REFUSED}the reply cannot be put together ({why})")
        self._inner._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._inner.node,
                run_id=self._inner.run.run_id,
                message_object_id=upload.proto.metadata.message_id,
            )
        )
        return reply

    def _pull_function(self) -> Callable[[str], bytes]:
        return make_pull_object_fn_protobuf(
            pull_object_protobuf=self._inner._runtime_client.PullObject,
            node=self._inner.node,
            run_id=self._inner.run.run_id,
        )


class _UnusableError(ValueError):
    """A reply is of no use; the message says why."""


class _Upload:
    """A reply that the SuperLink has been told of, and of its objects those that have been uploaded by now."""

    def __init__(self, proto: MessageProto, tree: ObjectTree, most_bytes: int, since: float) -> None:
        self.proto = proto
        self.contents: dict[str, bytes] = {}
        self.since = since
        self._tree = tree
        self._most_bytes = most_bytes
        self._size = 0
        self._missing = False

    def fetch(self, pull: Callable[[str], bytes]) -> bool:
        """Fetch what has been uploaded since the last time; return whether that is all.

        Raises
        ------
        _UnusableError
            There is too much of it, or some of it will never come.
        """
        names = [part.object_id for part in islice(iterate_object_tree(self._tree), MOST_OBJECTS + 1)]
        if len(names) > MOST_OBJECTS:
            raise _UnusableError(f"of more than {MOST_OBJECTS} objects")
        self._missing = False

        def once(name: str) -> bytes:  # in a thread of Flower's; a size that is a little out of date will do
            if name in self.contents:
                return self.contents[name]
            if self._size > self._most_bytes:
                raise ObjectPullError(name, "there is already too much")
            try:
                content = self.contents[name] = pull(name)
            except ObjectUnavailableError:
                self._missing = True
                raise
            self._size += len(content)
            return content

        try:
            pull_objects(list(dict.fromkeys(names)), once, max_tries_per_object=1)
        except ObjectPullError as error:
            if not self._missing and self._size <= self._most_bytes:
                raise _UnusableError("some of it was never uploaded") from error
        if self._size > self._most_bytes:
            raise _UnusableError(f"of {self._size} bytes or more, must be at most {self._most_bytes}")
        return not self._missing


def _put_together(proto: MessageProto, contents: Mapping[str, bytes]) -> Message:
    """Return a reply with what its node wrote into it, and with what the SuperLink knows about it."""
    found = inflate_object_from_contents(proto.metadata.message_id, dict(contents))
    if not isinstance(found, Message):
        raise _UnusableError(f"it is of type {type(found).__name__}, not a message")
    metadata = metadata_from_proto(proto.metadata)
    if found.has_error():
        return make_message(metadata=metadata, error=found.error)
    return make_message(metadata=metadata, content=found.content)


def _error(proto: MessageProto, why: str) -> Message:
    """Return the error that stands for a reply which cannot be used."""
    try:
        metadata = metadata_from_proto(proto.metadata)
    except ValueError:  # it is of a type that there is not
        proto.metadata.message_type = "query"
        metadata = metadata_from_proto(proto.metadata)
    return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, why))


def _array_bytes(content: RecordDict) -> int:
    """Return how large the arrays of a message are, without looking at their values."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(_size(array) for record in records for array in record.values())


def _size(array: Array) -> int:
    return prod(array.shape) * np.dtype(array.dtype).itemsize
