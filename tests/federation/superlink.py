"""A SuperLink as its grid sees it, within the process: replies as protobuf and as objects, which may be spoilt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content

from fedunlearn.federation.local import LocalGrid


@dataclass
class Uploaded:
    """A reply as the SuperLink has it; whoever spoils it changes what is in here.

    ``proto`` is what the SuperLink has looked at itself, ``objects`` what it only keeps. An object that is None has
    been announced and not uploaded.
    """

    proto: Any
    tree: ObjectTree
    objects: dict[str, bytes | None]

    @classmethod
    def of(cls, reply: Message) -> "Uploaded":
        """Return a reply as a SuperNode uploads it."""
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
            tree = get_object_tree(reply)
        return cls(message_to_proto(remove_content_from_message(reply)), tree, objects)

    def take(self) -> None:
        """Bring every object under the name that its bytes have, as a SuperLink takes it.

        Objects whose heads are not in order a SuperLink does not take: they are announced, and never there.
        """
        names: dict[str, str] = {}
        objects: dict[str, bytes | None] = {}
        for name, content in self.objects.items():  # children come before their parents
            if content is None:
                objects[name] = None
                continue
            for old, new in names.items():
                content = content.replace(old.encode(), new.encode())
            names[name] = get_object_id(content)
            objects[names[name]] = content if _in_order(content) else None
        tree = self.tree.SerializeToString()
        for old, new in names.items():
            tree = tree.replace(old.encode(), new.encode())
        self.tree, self.objects = ObjectTree.FromString(tree), objects
        message = self.proto.metadata.message_id
        self.proto.metadata.message_id = names.get(message, message)


def _in_order(content: bytes) -> bool:
    try:
        validate_object_content(content)
    except UnexpectedObjectContentError:
        return False
    return True


@dataclass
class SuperLink:
    """Stands for ``HttpGrid`` and the SuperLink behind it: clients answer at once, by way of objects.

    ``spoil(message, uploaded)`` is called with every reply that a SuperNode uploads, before anybody sees it;
    ``objects`` is what has been uploaded.
    """

    app: Any
    num_clients: int
    run_config: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Message, Uploaded], None] = lambda message, uploaded: None
    absent: set[int] = field(default_factory=set)
    pulled: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._nodes = LocalGrid(self.app, self.num_clients, run_config=self.run_config)
        self._replies: dict[str, Uploaded] = {}
        self.objects: dict[str, bytes | None] = {}
        self._sent = 0
        self.node = Node(node_id=1)
        self._runtime_client = self

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)

    def set_run(self, run: Any) -> None:
        self._nodes.set_run(run)

    def get_node_ids(self) -> list[int]:
        return [node for node in self._nodes.get_node_ids() if node not in self.absent]

    def push_messages(self, messages: list[Message]) -> list[str | None]:
        names: list[str | None] = []
        for message in messages:
            if message.metadata.dst_node_id in self.absent:
                names.append(None)
                continue
            (reply,) = self._nodes.send_and_receive([message])
            self._sent += 1
            name = f"message {self._sent}"
            message.metadata.__dict__["_message_id"] = name
            reply.metadata.__dict__["_reply_to_message_id"] = name
            uploaded = Uploaded.of(reply)
            self.spoil(message, uploaded)
            uploaded.take()
            for name_of_it, content in uploaded.objects.items():
                if (
                    content is not None or name_of_it not in self.objects
                ):  # of several replies one object may be
                    self.objects[name_of_it] = content
            self._replies[name] = uploaded
            names.append(name)
        return names

    # -- the Runtime API ----------------------------------------------------------------------------------

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's
        self.pulled += sorted(request.message_ids)
        found = [self._replies.pop(name) for name in sorted(request.message_ids) if name in self._replies]
        return PullAppMessagesResponse(
            messages_list=[uploaded.proto for uploaded in found],
            message_object_trees=[uploaded.tree for uploaded in found],
        )

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802 - Flower's
        if request.object_id not in self.objects:
            return PullObjectResponse(object_found=False)
        content = self.objects[request.object_id]
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802 - Flower's
        self.confirmed.append(request.message_object_id)

    def upload(self, name: str, content: bytes) -> None:
        """Upload an object that had only been announced."""
        self.objects[name] = content
