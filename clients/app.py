"""The Flower ClientApp: routes messages to the task. Holds nothing that knows which engine runs it."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients import classification

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the client's own data and answer with the pseudo-gradient."""
    return Message(classification.train(message.content, context), reply_to=message)


@app.train("forget")
def forget(message: Message, context: Context) -> Message:
    """Take part in one's own forgetting.

    PUF asks a client it forgets to train exactly as usual; the server negates the update. The message type of
    its own lets the node know that it is being forgotten.
    """
    return Message(classification.train(message.content, context), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on the client's own data."""
    return Message(classification.evaluate(message.content, context), reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer with the client number that this node serves."""
    client = int(context.node_config["partition-id"])
    return Message(RecordDict({"metrics": MetricRecord({"client": client})}), reply_to=message)
