"""What a server takes from a client's reply: nothing in it is used before :func:`read` has looked at it.

Nobody else opens a reply. A node may send anything in any field, and what it sends is either what its
:class:`Question` asked for, or refused with one line that goes on record under the client's name.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import WARNING

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from torch import Tensor

from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.federation.answers import (
    CARRIES,
    EXTRAS,
    NUMBER,
    OTHER_WORK,
    RAN,
    REFUSED,
    TRAIN,
    UPDATE,
    WORK,
    unsound,
    unsound_extras,
)
from fedunlearn.federation.array_bytes import UndecodableError, decoded
from fedunlearn.federation.payload import BUFFER_PREFIX, PARAMETERS
from fedunlearn.federation.shown import printable, shown
from fedunlearn.federation.sums import Contribution
from fedunlearn.federation.tallies import tally_in
from fedunlearn.models.state import ModelState

LONGEST_ERROR = 4000
"""Characters of a node's own account of an error that are kept: of a traceback, its end says most."""
LARGEST = 2**53
"""Up to this a whole number is exact in float64; nobody has a reason to send a larger one."""


@dataclass(frozen=True)
class Question:
    """What one message asked of one node.

    Attributes
    ----------
    number : int
        The client that the node serves; or the part of its data that this is about.
    node : int
    kind : str
        The message's type.
    group : str
        The message's group: a secret of the server's and the node's, see :func:`secret_group`.
    update_of : ModelState or None
        The model that an update is asked for; None: none is.
    ran : str
        What the node is to run for it, as :func:`~fedunlearn.federation.answers.work_of` has it.
    assigned : bool
        Whether it is to work with what the message assigns of its data: then the reply says which assignment it is
        to, and may have nothing to contribute.
    tally : bool
        Whether a tally is asked for.
    returns : Mapping[str, int]
        Tensors that are asked for beside the update: name → length.
    client : bool
        Whether the node is asked which client it serves.
    """

    number: int
    node: int
    kind: str
    group: str = field(default_factory=lambda: secret_group())
    update_of: ModelState | None = None
    ran: str = TRAIN
    assigned: bool = False
    tally: bool = False
    returns: Mapping[str, int] = field(default_factory=dict)
    client: bool = False

    def message(self, content: RecordDict) -> Message:
        """Return the message that asks it."""
        return Message(content, self.node, self.kind, group_id=self.group)


def secret_group(round: int | None = None) -> str:
    """Return a group for one message: the round, if any, and what nobody guesses.

    A SuperLink (Flower 1.41) takes a node's reply to any message whose id the node can tell, in whoever's name. The
    id is a hash of the message; with this in it, no other node can work it out.
    """
    return f"{'' if round is None else round}/{secrets.token_hex(16)}"


@dataclass(frozen=True)
class Reading:
    """What a reply holds of what was asked for; nothing of it where it is refused.

    Attributes
    ----------
    why : str
        Why it counts for nothing: the node's own account of its error, or one line from ``refused:`` on; empty
        where it is sound.
    error : bool
        Whether the node answered with an error.
    contribution : Contribution or None
        None where the client says that it has no data for this.
    loss : float
        Mean training loss; NaN where the client does not say.
    tally : Tally or Withheld or None
        None where the reply has none.
    extras : Mapping[str, Tensor]
        The tensors beside the update.
    client : int or None
        Which client the node says it serves.
    """

    why: str = ""
    error: bool = False
    contribution: Contribution | None = None
    loss: float = math.nan
    tally: Tally | Withheld | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    client: int | None = None


class _RefusedError(ValueError):
    """What a reply holds cannot be what was asked for; the message says why, in one short line."""


class _OtherWorkError(_RefusedError):
    """It is of other work than was asked for."""


def read(reply: Message, question: Question) -> Reading:
    """Return what a reply holds of what its question asked for, or why it is refused; never raise."""
    try:
        if reply.has_error():
            return Reading(_account_of(reply.error.reason), error=True)
        if not reply.has_content():
            raise _RefusedError("the reply is empty")
        metadata = reply.metadata
        if (metadata.message_type, metadata.group_id) != (question.kind, question.group):
            other = (
                "another message" if metadata.message_type == question.kind else shown(metadata.message_type)
            )
            raise _RefusedError(f"a reply to {other}, not to {question.kind}")
        return _content(reply.content, question)
    except _OtherWorkError as error:
        return Reading(f"{OTHER_WORK}: {error}")
    except (_RefusedError, UndecodableError) as error:
        return Reading(f"{REFUSED}{error}")
    except Exception as error:
        # Whatever nobody has thought of is that client's failure, and not the federation's.
        log(WARNING, "client %d: its reply cannot be read", question.number, exc_info=True)
        return Reading(f"{REFUSED}the reply cannot be read ({type(error).__name__})")


def _content(content: RecordDict, question: Question) -> Reading:
    metrics = content.get("metrics")
    metrics = metrics if isinstance(metrics, MetricRecord) else MetricRecord()
    if question.client:
        return Reading(client=_whole(metrics, "client"))
    tally = tally_in(content) if question.tally else None
    if question.update_of is None:
        if question.assigned and question.tally:
            _check_number(metrics, question)
        return Reading(tally=tally)
    _check_work(content, question)
    if question.assigned:
        _check_number(metrics, question)
    num_examples = _whole(metrics, "num-examples")
    if question.assigned and num_examples == 0:
        return Reading(tally=tally)
    loss = _number(metrics, "train-loss", math.nan)
    update = _update(content.get("arrays"), question.update_of)
    if why := unsound(update, num_examples, question.update_of):
        raise _RefusedError(why)
    extras = _extras(content.get(EXTRAS), question.returns) if question.returns else {}
    contribution = Contribution(question.number, num_examples, update.vector, update.buffers)
    return Reading(contribution=contribution, loss=loss, tally=tally, extras=extras)


def _check_work(content: RecordDict, question: Question) -> None:
    """Refuse a reply that carries something else than an update, or is of other work than was asked for."""
    work = content.get(WORK)
    if not isinstance(work, ConfigRecord):
        raise _OtherWorkError(f"the reply does not say what it carries and what was run (record {WORK!r})")
    if (carries := work.get(CARRIES)) != UPDATE:
        raise _OtherWorkError(f"the reply carries {shown(carries)} instead of {UPDATE!r}")
    if (ran := work.get(RAN)) != question.ran:
        raise _OtherWorkError(f"the client ran {shown(ran)} instead of {question.ran!r}")


def _check_number(metrics: MetricRecord, question: Question) -> None:
    number = metrics.get(NUMBER)
    if type(number) is not int or number != question.number:
        raise _RefusedError(f"metrics/{NUMBER} = {shown(number)} instead of {question.number}")


def _update(arrays: object, like: ModelState) -> ModelState:
    """Return the update in a record of arrays: those of the model, and no others."""
    if not isinstance(arrays, ArrayRecord) or PARAMETERS not in arrays:
        raise _RefusedError(f"the answer holds no arrays/{PARAMETERS}")
    expected = {PARAMETERS: like.vector} | {BUFFER_PREFIX + name: b for name, b in like.buffers.items()}
    if arrays.keys() != expected.keys():
        others = sorted(key.removeprefix(BUFFER_PREFIX) for key in arrays if key != PARAMETERS)
        raise _RefusedError(f"buffers {shown(others)}, the model's are {sorted(like.buffers)}")
    tensors: dict[str, Tensor] = {}
    for key, wanted in expected.items():
        what = "update" if key == PARAMETERS else f"buffer {key.removeprefix(BUFFER_PREFIX)}"
        tensors[key] = decoded(arrays[key], wanted, what)
    vector = tensors.pop(PARAMETERS)
    return ModelState(vector, {key.removeprefix(BUFFER_PREFIX): tensor for key, tensor in tensors.items()})


def _extras(arrays: object, returns: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the tensors in a record of arrays: those that were asked for, and no others."""
    if not isinstance(arrays, ArrayRecord):
        raise _RefusedError(f"the answer holds no extras, the job's are {sorted(returns)}")
    if arrays.keys() != returns.keys():
        raise _RefusedError(f"extras {shown(sorted(arrays))}, the job's are {sorted(returns)}")
    extras = {
        name: decoded(
            arrays[name],
            torch.empty(length, dtype=torch.float32, device="meta"),
            f"extra {name!r}",
            "the job's",
        )
        for name, length in returns.items()
    }
    if why := unsound_extras(extras, returns):
        raise _RefusedError(why)
    return extras


def _whole(metrics: MetricRecord, name: str) -> int:
    value = metrics.get(name)
    if type(value) is not int or not -LARGEST <= value <= LARGEST:
        raise _RefusedError(f"{name} = {shown(value)}, must be a whole number")
    return value


def _number(metrics: MetricRecord, name: str, default: float) -> float:
    value = metrics.get(name, default)
    if type(value) is float:
        return value
    if type(value) is not int or abs(value) > LARGEST:
        raise _RefusedError(f"{name} = {shown(value)}, must be a number")
    return float(value)


def _account_of(reason: object) -> str:
    """Return what a node says of its own error."""
    text = reason if isinstance(reason, str) else ""
    lines = text[-LONGEST_ERROR:].splitlines() if text.strip() else ()
    return "\n".join(map(printable, lines)) or "the node reported an error without a reason"


class Correspondence:
    """The messages of one exchange, and which of them a reply belongs to.

    Parameters
    ----------
    sent
        What is asked, each with the content that says it.

    Notes
    -----
    A reply is read if it answers, for the first time, a message that was sent to the node that it comes from.
    Anybody else's, one to another round's message, and a second one belong to none.
    """

    def __init__(self, sent: Iterable[tuple[Question, RecordDict]] = ()) -> None:
        self._sent = [(question.message(content), question) for question, content in sent]
        self._named: dict[str, Question] = {}
        self._answered: set[str] = set()

    @property
    def messages(self) -> list[Message]:
        """The messages to send."""
        return [message for message, _ in self._sent]

    def question_of(self, reply: Message) -> Question | None:
        """Return what a reply is to, once; None for one that is to nothing that was sent."""
        name = reply.metadata.reply_to_message_id
        if name not in self._named:  # a grid names messages when it sends them
            self._named = {message.metadata.message_id: question for message, question in self._sent}
        question = self._named.get(name)
        if not name or name in self._answered or question is None:
            return None
        if reply.metadata.src_node_id != question.node:
            return None
        self._answered.add(name)
        return question
