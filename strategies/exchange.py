"""One round's traffic: find the nodes, send, check every answer, add them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedunlearn.errors import RunError
from fedunlearn.federation.answers import FORGET, NUMBER, TALLY, TRAIN, Answers, told, unsound
from fedunlearn.federation.payload import PARAMETERS, ModelState, unpack
from fedunlearn.federation.sums import Contribution, OrderedSum, norm_of
from fedunlearn.federation.tallies import tally_in
from fedunlearn.out_of_memory import stop_if_out_of_memory
from fedunlearn.parts import Assignment
from strategies.plan import RoundPlan


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
    questions = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    found: dict[int, int] = {}
    for reply in grid.send_and_receive(questions, timeout=timeout):
        if reply.has_error():
            continue
        metrics = reply.content["metrics"]
        assert isinstance(metrics, MetricRecord)
        client = int(metrics["client"])  # type: ignore[arg-type]
        if client in found:
            raise RunError(f"two nodes say that they serve client {client}: {found[client]} and another")
        found[client] = reply.metadata.src_node_id
    if not found:
        raise RunError("no node of the federation answered which client it serves")
    return found


def messages_for(
    plan: RoundPlan,
    arrays: ArrayRecord,
    config: ConfigRecord,
    nodes: Mapping[int, int],
    *,
    skip: Iterable[int] = (),
    assignments: Mapping[int, Assignment] = MappingProxyType({}),
) -> list[Message]:
    """Return the round's messages. They share one content, which no receiver may change, but for assignments."""
    content = RecordDict({"arrays": arrays, "config": config})
    skip = set(skip)
    messages = []
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
            messages.append(Message(own, nodes[client], kind, group_id=str(plan.round)))
    return messages


def collect(
    replies: Iterable[Message],
    plan: RoundPlan,
    nodes: Mapping[int, int],
    like: ModelState,
    *,
    individually: bool,
    norms: bool = False,
    tolerant: bool = False,
    assignments: Mapping[int, Assignment] = MappingProxyType({}),
) -> Answers:
    """Check and sum the replies as they come; who did not answer soundly ends up in ``failed`` by number.

    A client may take part more than once: retained with one part of its data, forgotten with others. Then it says
    which of its assignments an answer is to; of somebody else's it cannot.

    Raises
    ------
    OutOfMemoryError
        If a client failed for want of memory, unless ``tolerant``: the others will, too.
    """
    owners = {number: assignment.client for number, assignment in assignments.items()}
    everybody = {owners.get(number, number) for number in (*plan.train, *plan.forget)}
    client_of = {nodes[client]: client for client in everybody if client in nodes}
    ordered = OrderedSum(plan.train)
    single: list[Contribution] = []
    answers = Answers(ordered.sum)
    missing = {TRAIN: set(plan.train), FORGET: set(plan.asked_to_forget)}
    for reply in replies:
        kind = reply.metadata.message_type
        client = _answers_for(
            reply, client_of.get(reply.metadata.src_node_id), owners, missing.get(kind, set())
        )
        if client is None:
            continue
        missing[kind].discard(client)
        if client in assignments and _has_nothing(reply):
            if kind == TRAIN and not individually:
                ordered.put(client, None)
            continue
        contribution, why = _read(reply, client, like, answers.losses)
        if contribution is None:
            answers.failed[client] = why
            if not tolerant:
                stop_if_out_of_memory({client: why}, plan.round)
        elif kind == FORGET:
            answers.forgetting.append(contribution)
            if TALLY in reply.content:
                answers.tallies[client] = tally_in(reply.content)
        elif individually:
            single.append(contribution)
        if norms and kind == TRAIN and contribution is not None:
            answers.norms[client] = norm_of(contribution.delta)
        if kind == TRAIN and not individually:
            ordered.put(client, contribution)
    for kind, clients in missing.items():
        for client in clients:
            answers.failed.setdefault(client, "did not answer")
            if kind == TRAIN and not individually:
                ordered.put(client, None)
    if individually:
        answers.retained = single
    return answers.sort()


def _answers_for(
    reply: Message, client: int | None, owners: Mapping[int, int], missing: Set[int]
) -> int | None:
    """Return the number of those still missing that a client's reply is for, or None if it is for none of them."""
    if client is None:
        return None
    own = [number for number in missing if owners.get(number, number) == client]
    if len(own) > 1:
        metrics = reply.content.get("metrics") if not reply.has_error() else None
        named = metrics.get(NUMBER) if isinstance(metrics, MetricRecord) else None
        # An error does not say: it stands for the first of them, and the others will be found not to have come.
        return named if named in own else min(own) if reply.has_error() else None  # type: ignore[return-value]
    return own[0] if own else None


def _has_nothing(reply: Message) -> bool:
    """Whether a client with an assignment says that it leaves it no data: nothing went wrong."""
    metrics = None if reply.has_error() else reply.content.get("metrics")
    return isinstance(metrics, MetricRecord) and metrics.get("num-examples") == 0


def _read(
    reply: Message, client: int, like: ModelState, losses: dict[int, float]
) -> tuple[Contribution | None, str]:
    """Return the contribution in a reply, or why it is refused."""
    if reply.has_error():
        return None, reply.error.reason or "the node reported an error without a reason"
    arrays, metrics = reply.content.get("arrays"), reply.content.get("metrics")
    if not isinstance(arrays, ArrayRecord) or PARAMETERS not in arrays:
        return None, f"refused: the answer holds no arrays/{PARAMETERS}"
    num_examples = metrics.get("num-examples") if isinstance(metrics, MetricRecord) else None
    if not isinstance(metrics, MetricRecord) or not isinstance(num_examples, int):
        return None, f"refused: num-examples = {num_examples!r}, must be a whole number"
    update = unpack(arrays)
    if why := unsound(update, num_examples, like):
        return None, f"refused: {why}"
    losses[client] = float(metrics.get("train-loss", float("nan")))  # type: ignore[arg-type]
    return Contribution(client, num_examples, update.vector, update.buffers), ""
