"""The Flower ClientApp: turns messages into calls of the task's routine. Holds nothing that knows the engine.

Request: ``arrays`` (the global model, see :mod:`fedunlearn.federation.payload`) and ``config`` with ``round``,
``lr`` and ``seed``. Reply to training: ``arrays`` holding the pseudo-gradient w_k − w and the buffers after
training, ``metrics`` with ``num-examples`` and ``train-loss``.
"""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.routine import Routine
from clients.tasks import routine_at
from fedunlearn.federation.payload import ModelState, pack, unpack

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
    routine, _ = _loaded(message, context)
    metrics = MetricRecord(routine.evaluate(_client(context)))
    return Message(RecordDict({"arrays": ArrayRecord(), "metrics": metrics}), reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer with the client number that this node serves."""
    return Message(RecordDict({"metrics": MetricRecord({"client": _client(context)})}), reply_to=message)


def _trained(message: Message, context: Context) -> Message:
    routine, received = _loaded(message, context)
    config = message.content["config"]
    assert isinstance(config, ConfigRecord)
    result = routine.train(_client(context), message.metadata.message_type, config)
    update = ModelState(routine.model.vector - received.vector, routine.model.buffers())
    metrics = MetricRecord({"num-examples": result.num_examples, "train-loss": result.loss})
    return Message(RecordDict({"arrays": pack(update), "metrics": metrics}), reply_to=message)


def _loaded(message: Message, context: Context) -> tuple[Routine, ModelState]:
    """Return this thread's routine, with the message's model loaded, and that model."""
    routine = routine_at(str(context.run_config["experiment"]), int(context.run_config["seed"]))
    received = unpack(message.content["arrays"])  # type: ignore[arg-type]
    routine.model.load(received.vector, received.buffers)
    return routine, received


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])
