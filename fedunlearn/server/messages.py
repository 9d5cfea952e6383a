"""A federation's traffic: find the nodes; train a round by messages, checking every answer and adding them up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from logging import WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn.errors import RunError
from fedunlearn.federation.answers import (
    DID_NOT_ANSWER,
    FORGET,
    NUMBER,
    TALLY,
    TENSORS,
    TRAIN,
    Answers,
    RoundWork,
    work_of,
)
from fedunlearn.federation.payload import pack, packed
from fedunlearn.federation.replies import Correspondence, Question, read, secret_group
from fedunlearn.federation.sums import Contribution, OrderedSum, norm_of
from fedunlearn.out_of_memory import stop_if_out_of_memory


def find_clients(grid: Grid, timeout: float | None = None) -> Mapping[int, int]:
    """Return client number → node id.

    Node ids are random per run, so every node is asked which client it serves; an engine that knows
    (``client_nodes()``) is not asked.

    Raises
    ------
    RunError
        If two nodes say they serve the same client, or no node answers.
    """
    if hasattr(grid, "client_nodes"):
        nodes: Mapping[int, int] = grid.client_nodes()
        return nodes
    asked = Correspondence(
        (Question(-1, node, MessageType.QUERY, client=True), RecordDict()) for node in grid.get_node_ids()
    )
    found: dict[int, int] = {}
    for reply in grid.send_and_receive(asked.messages, timeout=timeout):
        if (question := asked.question_of(reply)) is None:
            continue
        reading = read(reply, question)
        if (client := reading.client) is None:
            log(WARNING, "node %d does not say which client it serves: %s", question.node, reading.why)
            continue
        if client in found:
            raise RunError(f"two nodes say that they serve client {client}: {found[client]} and another")
        found[client] = question.node
    if not found:
        raise RunError("no node of the federation answered which client it serves")
    return found


class MessageTrainer:
    """Trains a round by messages: the :class:`~fedunlearn.federation.answers.RoundTrainer` of grids that have none.

    Parameters
    ----------
    grid
    nodes
        Client number → node id of everybody who can be sent a message; nobody else is, and has not answered.
    timeout
        Seconds to wait for the replies; None: as long as it takes.
    """

    def __init__(self, grid: Grid, nodes: Mapping[int, int], timeout: float | None) -> None:
        self._grid = grid
        self._nodes = nodes
        self._timeout = timeout

    def train_round(self, work: RoundWork) -> Answers:
        """Send the round's messages, and check and sum the replies as they come.

        Raises
        ------
        OutOfMemoryError
            If a client failed for want of memory, unless the work is tolerant: the others will, too.
        """
        sent = Correspondence(_messages(work, self._nodes))
        return _collected(self._grid.send_and_receive(sent.messages, timeout=self._timeout), sent, work)


def _messages(work: RoundWork, nodes: Mapping[int, int]) -> Iterator[tuple[Question, RecordDict]]:
    """Yield what is asked. Those of a kind share what is the same for all, and no receiver may change it."""
    round = int(work.config["round"])
    for numbers, kind in ((work.train, TRAIN), (work.forget, FORGET)):
        start, told, job = work.start(kind), work.told(kind), work.jobs.get(kind)
        common = RecordDict({"arrays": pack(start), "config": ConfigRecord(dict(told))})
        if job is not None and job.tensors:
            common[TENSORS] = packed(job.tensors)
        for number in numbers:
            assignment = work.assignments.get(number)
            client = number if assignment is None else assignment.client
            if client not in nodes:
                continue
            content, asked = common, work.asked(number, kind)
            if assignment is not None or (job is not None and number in job.own):
                content = RecordDict(dict(common.items()))
                if assignment is not None:
                    content["config"] = ConfigRecord({**asked.config, NUMBER: number})
                if job is not None and number in job.own:
                    content[TENSORS] = packed(asked.tensors)
            question = Question(
                number,
                nodes[client],
                kind,
                secret_group(round),
                update_of=start,
                ran=work_of(told),
                assigned=assignment is not None,
                tally=kind == FORGET and bool(told.get(TALLY)),
                returns={} if job is None else job.returns,
            )
            yield question, content


def _collected(replies: Iterable[Message], sent: Correspondence, work: RoundWork) -> Answers:
    """Return what the replies hold; who did not answer soundly ends up in ``failed`` by number.

    A client may take part more than once: retained with one part of its data, forgotten with others.
    """
    ordered = OrderedSum(work.train)
    single: list[Contribution] = []
    answers = Answers(single if work.individually else ordered.sum)
    missing = {TRAIN: set(work.train), FORGET: set(work.forget)}
    for reply in replies:
        if (question := sent.question_of(reply)) is None:
            continue
        reading, client, kind = read(reply, question), question.number, question.kind
        contribution = reading.contribution
        missing[kind].discard(client)
        if reading.why:
            answers.failed[client] = reading.why
            if not work.tolerant:
                stop_if_out_of_memory({client: reading.why}, work.config["round"])
        elif contribution is not None:
            answers.losses[client] = reading.loss
            if reading.extras:
                answers.extras[client] = reading.extras
            if kind == FORGET:
                answers.forgetting.append(contribution)
                if reading.tally is not None:
                    answers.tallies[client] = reading.tally
            elif work.individually:
                single.append(contribution)
            if work.norms and kind == TRAIN:
                answers.norms[client] = norm_of(contribution.delta)
        if kind == TRAIN and not work.individually:
            ordered.put(client, contribution)
    for kind, clients in missing.items():
        for client in clients:
            answers.failed.setdefault(client, DID_NOT_ANSWER)
            if kind == TRAIN and not work.individually:
                ordered.put(client, None)
    return answers.sort()
