"""Image classification as a client does it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedunlearn import resident
from fedunlearn.config import Experiment
from fedunlearn.evaluation.accuracy import accuracy, mean_loss
from fedunlearn.evaluation.outputs import SplitOutputs, predict
from fedunlearn.federation.answers import Config
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import LocalResult, StackResult, train_local, train_stack


class Classification:
    """A worker's resident classifier and data: a :class:`~fedunlearn.federation.routine.ClientRoutine`."""

    def __init__(self, place: resident.Workplace) -> None:
        self._place = place

    @property
    def model(self) -> FlatModel:
        """The resident model; its weights are whatever was loaded last."""
        return self._place.model

    def train(self, client: int, kind: str, config: Config) -> LocalResult:
        """Train the model in place on the client's data.

        PUF asks a client it forgets to train exactly as usual (the server negates), so both kinds are one.
        """
        place = self._place
        images, labels = place.data.client(client)
        return train_local(
            place.model,
            images,
            labels,
            place.experiment.train,
            lr=float(config["lr"]),
            generator=_generator(config, client),
        )

    def train_stack(self, clients: Sequence[int], start: Tensor, config: Config) -> StackResult:
        """Train many clients in one stack, each on its own data and in its own order of batches."""
        place = self._place
        rows = [place.data.client(client) for client in clients]
        return train_stack(
            place.model,
            start,
            [images for images, _ in rows],
            [labels for _, labels in rows],
            place.experiment.train,
            lr=float(config["lr"]),
            generators=(_generator(config, client) for client in clients),  # few are drawn from
        )

    def evaluate(self, client: int) -> dict[str, int | float | list[int] | list[float]]:
        """Return accuracy (percent) and loss (nats) of the model on the client's own training data."""
        images, labels = self._place.data.client(client)
        outputs = SplitOutputs(predict(self.model.module, images), labels)
        return {"num-examples": len(labels), "accuracy": accuracy(outputs), "loss": mean_loss(outputs)}


def routine_at(path: str, seed: int) -> Classification:
    """Return this thread's classifier of the experiment in a file, with the data that ``seed`` deals out."""
    return Classification(resident.workplace(path, seed))


def routine_of(experiment: Experiment, seed: int) -> Classification:
    """Return a worker's classifier of an experiment, wherever the worker is."""
    data = resident.data_of(experiment, seed)
    return Classification(resident.Workplace(experiment, data, resident.model_of(experiment, data)))


def _generator(config: Config, client: int) -> torch.Generator:
    return torch_generator(int(config["seed"]), "batches", int(config["round"]), client)
