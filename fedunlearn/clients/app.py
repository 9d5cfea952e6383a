"""The Flower ClientApp: turns messages into calls of the task's routine. Holds nothing that knows the engine.

Request: ``arrays`` (the model to start from, see :mod:`fedunlearn.federation.payload`), ``config`` with ``round``,
``lr`` and ``seed``, and what the strategy has for the client to do instead, with ``tensors`` that are sent along.
Reply to training: ``arrays`` holding the pseudo-gradient w_k − w and the buffers after training, ``work`` which says
that this is an ``update`` and what was run for it (``train``, with its epochs if they were named, or the routine with
its settings), ``metrics`` with ``num-examples`` and ``train-loss``, and ``extras`` if the job asks for tensors.

Where ``config`` has a ``tally``, which only live federations put there, a client to forget adds a ``tally`` of the
model it received (see :mod:`fedunlearn.evaluation.histograms`). A node that has been told that it is forgotten
refuses to train and to measure, for as long as Flower keeps its ``context.state``: that is one run's, in the memory
of its SuperNode, and so every server tells it again.
"""

from logging import WARNING

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from fedunlearn.clients.node_data import client_of, routine_for
from fedunlearn.clients.trainer import Routine
from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.answers import (
    ASSIGNMENT,
    CARRIES,
    EXTRAS,
    NUMBER,
    RAN,
    REFUSED,
    TALLY,
    TENSORS,
    UPDATE,
    WORK,
    ClientWork,
)
from fedunlearn.federation.client_work import do_work
from fedunlearn.federation.compat import error_reply
from fedunlearn.federation.payload import pack, packed, unpack, unpacked
from fedunlearn.federation.tallies import tally_record
from fedunlearn.parts import Assignment

FORGOTTEN = "forgotten"
"""The one record that a forgotten node's ``context.state`` keeps."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the client's own data and answer with the pseudo-gradient."""
    return _trained(message, context)


@app.train("forget")
def forget(message: Message, context: Context) -> Message:
    """Take part in one's own forgetting.

    The message type of its own lets the node know that it is being forgotten.
    """
    return _trained(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on the client's own data."""
    client = _taking_part(context)
    metrics = MetricRecord(_loaded(message, context).evaluate(client))
    return Message(RecordDict({"arrays": ArrayRecord(), "metrics": metrics}), reply_to=message)


@app.evaluate("tally")
def tally(message: Message, context: Context) -> Message:
    """Count and sum what the global model makes of the client's own data, or of what the message assigns of them."""
    client = _taking_part(context)
    routine, config = _loaded(message, context), _config_of(message)
    number = _assigned_number(client, config)
    content = RecordDict({TALLY: tally_record(routine.tally(client, config))})
    if NUMBER in config:
        content["metrics"] = MetricRecord({NUMBER: number})
    return Message(content, reply_to=message)


@app.query("forgotten")
def forgotten(message: Message, context: Context) -> Message:
    """Learn that one has been forgotten: drop what was kept, and count what the weights that forgot make of the data.

    Told again, the node does it again: a server that was killed does not know whether it has told. A message without
    weights only reminds it.
    """
    context.state.clear()
    context.state[FORGOTTEN] = ConfigRecord()
    if "arrays" not in message.content:
        return Message(RecordDict(), reply_to=message)
    client, config = client_of(context), _config_of(message)
    _assigned_number(client, config)
    routine = _loaded(message, context)
    return Message(RecordDict({TALLY: tally_record(routine.tally(client, config))}), reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer with the client number that this node serves."""
    return Message(RecordDict({"metrics": MetricRecord({"client": client_of(context)})}), reply_to=message)


def _trained(message: Message, context: Context) -> Message:
    client, config = _taking_part(context), _config_of(message)
    number = _assigned_number(client, config)
    routine = routine_for(context)
    received = unpack(message.content["arrays"])  # type: ignore[arg-type]
    tensors = unpacked(message.content.get(TENSORS))
    asked = ClientWork(number, message.metadata.message_type, config, received, tensors)
    try:
        done = do_work(routine, asked)
    except UserError as error:
        log(WARNING, "client %d cannot do what it is asked for: %s", client, error)
        return error_reply(message, f"{REFUSED}{error}")
    metrics: dict[str, int | float] = {"num-examples": done.num_examples, "train-loss": done.loss}
    if NUMBER in config:
        metrics[NUMBER] = number
    content = RecordDict(
        {
            "arrays": pack(done.update),
            WORK: ConfigRecord({CARRIES: UPDATE, RAN: done.ran}),
            "metrics": MetricRecord(metrics),  # type: ignore[arg-type]
        }
    )
    if done.extras:
        content[EXTRAS] = packed(done.extras)
    if done.tally is not None:
        content[TALLY] = tally_record(done.tally)
    return Message(content, reply_to=message)


def _config_of(message: Message) -> ConfigRecord:
    config = message.content["config"]
    assert isinstance(config, ConfigRecord)
    return config


def _assigned_number(client: int, config: ConfigRecord) -> int:
    """Return the number that an assignment is about; the client's own without one.

    Raises
    ------
    RunError
        The assignment is another client's.
    """
    if ASSIGNMENT not in config:
        return client
    named = Assignment.loads(str(config[ASSIGNMENT])).client
    if named != client:
        raise RunError(f"client {client} was given client {named}'s assignment")
    return int(config[NUMBER])  # type: ignore[arg-type]


def _loaded(message: Message, context: Context) -> Routine:
    """Return this thread's routine, with the message's model loaded."""
    routine = routine_for(context)
    received = unpack(message.content["arrays"])  # type: ignore[arg-type]
    routine.model.load(received.vector, received.buffers)
    return routine


def _taking_part(context: Context) -> int:
    """Return the client's number; refuse in its name if it has been forgotten."""
    client = client_of(context)
    if FORGOTTEN in context.state:
        raise RunError(f"client {client} has been forgotten and no longer trains or evaluates")
    return client
