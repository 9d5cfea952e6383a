"""The ClientApp: train from the weights received, return the weights reached."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from stock_app import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the client's weights and number of examples; a no-op with the very arrays it was sent."""
    settings = context.run_config
    arrays, num_examples = message.content["arrays"], 1
    if not settings["noop-floats"]:
        weights, num_examples = task.train(
            path=str(settings["experiment"]),
            seed=int(settings["seed"]),
            client=int(context.node_config["partition-id"]),
            number=int(message.content["config"]["server-round"]),
            weights=arrays.to_torch_state_dict(),
        )
        arrays = ArrayRecord(weights)
    metrics = MetricRecord({"num-examples": num_examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
