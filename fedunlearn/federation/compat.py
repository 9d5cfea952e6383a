"""The places where Flower's interface is not public yet, kept together (written against Flower 1.41)."""

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity


def ensure_task_identity(node_id: int = 1) -> None:
    """Let this process create Flower messages outside of a Flower runtime.

    ``Message(...)`` reads its run and sender from a process-wide identity that only Flower's own launchers
    set. An identity that is already there is left alone.
    """
    for name, value in {"task_id": 1, "run_id": 1, "node_id": node_id}.items():
        if getattr(TaskIdentity, f"_{name}") is None:
            setattr(TaskIdentity, name, value)


def stamp(message: Message, message_id: str) -> Message:
    """Give a message the id that a SuperLink would give it, so that replies can refer to it."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def error_reply(message: Message, reason: str) -> Message:
    """Return the reply that says: the client app raised, and this is its traceback."""
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)


def empty_state() -> RecordDict:
    """Return a fresh ``context.state``."""
    return RecordDict()
