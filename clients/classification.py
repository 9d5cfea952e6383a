"""Image classification as a client does it: content of a message in, content of the reply out.

Request: ``arrays`` (the global model, see :mod:`fedunlearn.federation.payload`) and ``config`` with ``round``,
``lr`` and ``seed``. Reply to training: ``arrays`` holding the pseudo-gradient w_k − w and the buffers after
training, ``metrics`` with ``num-examples`` and ``train-loss``.
"""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict

from fedunlearn import resident
from fedunlearn.config import Experiment
from fedunlearn.evaluation.accuracy import accuracy, mean_loss
from fedunlearn.evaluation.outputs import SplitOutputs, predict
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import train_local


def _set_up(
    content: RecordDict, context: Context
) -> tuple[Experiment, FlatModel, ModelState, torch.Tensor, torch.Tensor]:
    experiment, data, model = resident.workplace(
        str(context.run_config["experiment"]), int(context.run_config["seed"])
    )
    received = unpack(content["arrays"])  # type: ignore[arg-type]
    model.load(received.vector, received.buffers)
    images, labels = data.client(int(context.node_config["partition-id"]))
    return experiment, model, received, images, labels


def train(content: RecordDict, context: Context) -> RecordDict:
    """Train locally from the received weights and return the pseudo-gradient."""
    experiment, model, received, images, labels = _set_up(content, context)
    config = content["config"]
    assert isinstance(config, ConfigRecord)
    result = train_local(
        model,
        images,
        labels,
        experiment.train,
        lr=float(config["lr"]),  # type: ignore[arg-type]
        generator=torch_generator(
            int(config["seed"]),  # type: ignore[arg-type]
            "batches",
            int(config["round"]),  # type: ignore[arg-type]
            int(context.node_config["partition-id"]),
        ),
    )
    update = ModelState(model.vector - received.vector, model.buffers())
    metrics = MetricRecord({"num-examples": result.num_examples, "train-loss": result.loss})
    return RecordDict({"arrays": pack(update), "metrics": metrics})


def evaluate(content: RecordDict, context: Context) -> RecordDict:
    """Return accuracy (percent) and loss (nats) of the received model on the client's own training data."""
    _, model, _, images, labels = _set_up(content, context)
    outputs = SplitOutputs(predict(model.module, images), labels)
    metrics = MetricRecord(
        {"num-examples": len(labels), "accuracy": accuracy(outputs), "loss": mean_loss(outputs)}
    )
    return RecordDict({"arrays": ArrayRecord(), "metrics": metrics})
