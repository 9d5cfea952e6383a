"""The memory that an experiment needs on its device, measured on a few images and scaled up."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.evaluation.forward import evaluation_batch
from fedunlearn.models.flat import FlatModel
from fedunlearn.simulation.activations import of_evaluation, of_training
from fedunlearn.simulation.free_memory import free_bytes
from fedunlearn.training import accelerate, stack_size

WORKSPACE = 1.25
"""For each byte of activations so many are taken: layers need room to work in, and allocators leave gaps. From the
peaks of whole processes with resnet18, vit, unet and small-cnn on a processor, which were 1.0 to 1.6 per byte."""
SERVER_COPIES = 6
"""Models of the server: global weights, those before them, and the two networks that start and measure them."""


@dataclass(frozen=True)
class Memory:
    """What an experiment needs of its device at once, in bytes.

    Not counted is the program itself.

    Attributes
    ----------
    data : int
        Images and labels, as loaded.
    weights : int
        Weights, gradients, optimisers and sums of all workers and the server, buffers included.
    constant, per_image : int, float
        Of the activations of one model: what there is for any batch, and for each of its images.
    models : int
        How many train side by side: workers, times the clients that one trains in a stack.
    batch_size, most_rows : int
        Of ``[train]``, and of the client that has most: no batch is larger than that.
    evaluation : int
        Activations of an evaluation, which is done between rounds.
    evaluated : int
        Images that it runs at once.
    apart : bool
        Whether evaluation and training are in processes of their own, which keep what they once had.
    here : int
        What there is.
    """

    data: int
    weights: int
    constant: int
    per_image: float
    models: int
    batch_size: int
    most_rows: int
    evaluation: int
    evaluated: int
    apart: bool
    here: int

    def rows(self, batch_size: int | None = None) -> int:
        """Return the images of the largest batch."""
        return min(self.batch_size if batch_size is None else batch_size, self.most_rows)

    def training(self, batch_size: int | None = None) -> int:
        """Return the activations of all models that train side by side, with batches of this size."""
        size = self.rows(batch_size)
        return int(self.models * (self.constant + self.per_image * size) * WORKSPACE)

    def total(self, batch_size: int | None = None) -> int:
        """Return the whole need, with batches of this size."""
        passes = self.training(batch_size), self.evaluation
        return self.data + self.weights + (sum(passes) if self.apart else max(passes))

    @property
    def fits(self) -> bool:
        """Whether there is as much as is needed."""
        return self.total() <= self.here

    def smaller_batch(self) -> int | None:
        """Return a half, quarter, … of the batch size: the largest that fits; None if not even one image does.

        One that no client's data fill would change nothing.
        """
        size = self.batch_size // 2
        while size and (size >= self.most_rows or self.total(size) > self.here):
            size //= 2
        return size or None


def memory_of(experiment: Experiment) -> Memory:
    """Measure what an experiment needs; loads the data and runs its model on a few images."""
    data = workspace.data_of(experiment, experiment.seeds[0])
    engine, device = experiment.engine, workspace.device_of(experiment)
    model = workspace.new_model(experiment, data, seed=0)
    accelerate(model, precision=engine.precision, channels_last=engine.channels_last)
    workers = workers_on_one_device(experiment)
    apart = engine.name == "ray"
    datasets = min(len(experiment.seeds), workspace.DATA_KEPT) + (workers if apart else 0)
    examples = data.train_images, data.train_labels
    constant, per_image = of_training(model, *examples, workspace.recipe_of(experiment, data))
    evaluated = min(evaluation_batch(data.train_images.shape), max(len(split) for split in _images(data)))
    # The data were loaded a moment ago, and are not free any more.
    held = data_bytes(data) if device.type == "cpu" else 0
    return Memory(
        data=datasets * data_bytes(data),
        weights=_weights(experiment, data, model, workers),
        constant=constant,
        per_image=per_image,
        models=workers * _at_once(experiment, data, model),
        batch_size=experiment.train.batch_size,
        most_rows=int(data.clients.sizes.max()),
        evaluation=int(of_evaluation(model, data.train_images) * evaluated * WORKSPACE),
        evaluated=evaluated,
        apart=apart,
        here=free_bytes(device) + held,
    )


def workers_on_one_device(experiment: Experiment) -> int:
    """Return how many workers share a device; 1 where that is still to be chosen."""
    engine = experiment.engine
    workers = engine.workers
    gpus = engine.gpus_per_worker(workspace.device_of(experiment).type) if engine.name == "ray" else 0.0
    if gpus > 0:
        share = max(1, int(1 / gpus))
        return min(share, workers) if engine.given_workers is not None else share
    return workers


# -- what stays ----------------------------------------------------------------------------------------------


def data_bytes(data: FederatedData) -> int:
    """Return the bytes of all images and labels."""
    labels = (data.train_labels, data.validation_labels, data.test_labels)
    return sum(tensor.nbytes for tensor in (*_images(data), *labels))


def _images(data: FederatedData) -> tuple[Tensor, ...]:
    return data.train_images, data.validation_images, data.test_images


def _at_once(experiment: Experiment, data: FederatedData, model: FlatModel) -> int:
    """Return how many clients a worker trains at the same time."""
    stack = experiment.engine.batch_clients
    if stack == 1:
        return 1
    return min(stack, stack_size(model.module, data.train_images.shape[1:], experiment.train))


def _weights(experiment: Experiment, data: FederatedData, model: FlatModel, workers: int) -> int:
    train, stack = experiment.train, experiment.engine.batch_clients
    # SGD remembers a velocity if any. The Adams remember two moments, and need a denominator in passing.
    optimizer = 3 if train.optimizer != "sgd" else int(train.momentum > 0)
    trained = 2 + optimizer  # weights and gradient
    if stack > 1:
        trained = 2 + stack + _at_once(experiment, data, model) * (2 + optimizer)
    buffers = sum(buffer.nbytes for buffer in model.buffers().values())
    # A live federation, and a robust rule, take a round's updates one by one: all are held until the last has come.
    singly = experiment.live or experiment.federation.aggregation != "mean"
    held = experiment.federation.slots if singly else 0
    # Beside what it trains, a worker holds a sum or an update.
    return (SERVER_COPIES + held + workers * (trained + 1)) * (model.vector.nbytes + buffers)
