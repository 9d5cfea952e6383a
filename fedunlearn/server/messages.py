"""One round's traffic: find the nodes, send, check every answer, add them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import WARNING
from types import MappingProxyType

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn.errors import RunError
from fedunlearn.federation.answers import DID_NOT_ANSWER, FORGET, NUMBER, TALLY, TRAIN, Answers, told, work_of
from fedunlearn.federation.payload import ModelState
from fedunlearn.federation.replies import Correspondence, Question, read, secret_group
from fedunlearn.federation.sums import Contribution, OrderedSum, norm_of
from fedunlearn.out_of_memory import stop_if_out_of_memory
from fedunlearn.parts import Assignment
from fedunlearn.server.plan import RoundPlan


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


def messages_for(
    plan: RoundPlan,
    model: ModelState,
    arrays: ArrayRecord,
    config: ConfigRecord,
    nodes: Mapping[int, int],
    *,
    skip: Iterable[int] = (),
    assignments: Mapping[int, Assignment] = MappingProxyType({}),
) -> Correspondence:
    """Return the round's messages. They share one content, which no receiver may change, but for assignments.

    Parameters
    ----------
    model, arrays
        The global model, and what it travels as.
    """
    content = RecordDict({"arrays": arrays, "config": config})
    skip, sent = set(skip), []
    for numbers, kind in ((plan.train, TRAIN), (plan.asked_to_forget, FORGET)):
        for number in numbers:
            assignment = assignments.get(number)
            client = number if assignment is None else assignment.client
            if number in skip or client not in nodes:
                continue
            own = content
            if assignment is not None:
                own_config = ConfigRecord({**told(config, assignment), NUMBER: number})
                own = RecordDict({"arrays": arrays, "config": own_config})
            question = Question(
                number,
                nodes[client],
                kind,
                secret_group(plan.round),
                update_of=model,
                ran=work_of(kind, config),
                assigned=assignment is not None,
                tally=kind == FORGET and bool(config.get(TALLY)),
            )
            sent.append((question, own))
    return Correspondence(sent)


def collect(
    replies: Iterable[Message],
    sent: Correspondence,
    plan: RoundPlan,
    *,
    individually: bool,
    norms: bool = False,
    tolerant: bool = False,
) -> Answers:
    """Check and sum the replies as they come; who did not answer soundly ends up in ``failed`` by number.

    A client may take part more than once: retained with one part of its data, forgotten with others.

    Raises
    ------
    OutOfMemoryError
        If a client failed for want of memory, unless ``tolerant``: the others will, too.
    """
    ordered = OrderedSum(plan.train)
    single: list[Contribution] = []
    answers = Answers(ordered.sum)
    missing = {TRAIN: set(plan.train), FORGET: set(plan.asked_to_forget)}
    for reply in replies:
        if (question := sent.question_of(reply)) is None:
            continue
        reading, client, kind = read(reply, question), question.number, question.kind
        contribution = reading.contribution
        missing[kind].discard(client)
        if reading.why:
            answers.failed[client] = reading.why
            if not tolerant:
                stop_if_out_of_memory({client: reading.why}, plan.round)
        elif contribution is not None:
            answers.losses[client] = reading.loss
            if kind == FORGET:
                answers.forgetting.append(contribution)
                if reading.tally is not None:
                    answers.tallies[client] = reading.tally
            elif individually:
                single.append(contribution)
            if norms and kind == TRAIN:
                answers.norms[client] = norm_of(contribution.delta)
        if kind == TRAIN and not individually:
            ordered.put(client, contribution)
    for kind, clients in missing.items():
        for client in clients:
            answers.failed.setdefault(client, DID_NOT_ANSWER)
            if kind == TRAIN and not individually:
                ordered.put(client, None)
    if individually:
        answers.retained = single
    return answers.sort()
