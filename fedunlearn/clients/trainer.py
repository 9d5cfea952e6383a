"""What clients of every task have in common: a resident model and data, and local training on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import WARNING
from types import MappingProxyType
from typing import ClassVar

import torch
from flwr.common.logger import log
from torch import Tensor

from fedunlearn import workspace
from fedunlearn.clients.routine_progress import RoutineProgress
from fedunlearn.config import TrainConfig
from fedunlearn.errors import UserError
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.histograms import FEWEST, TOO_FEW, Tally, Withheld, tally_of
from fedunlearn.evaluation.scored import QUALITY, Scored
from fedunlearn.federation.answers import ASSIGNMENT, Config, work_of
from fedunlearn.federation.client_work import SERVER
from fedunlearn.federation.hosted_routine import Chosen, modules_of
from fedunlearn.federation.jobs import EPOCHS, LR, ROUTINE
from fedunlearn.models.flat import FlatModel
from fedunlearn.parts import Assignment
from fedunlearn.randomness import torch_generator
from fedunlearn.training import LocalResult, StackResult, train_local, train_stack
from fedunlearn.unlearning import Conditions, Examples

Metrics = dict[str, int | float | list[int] | list[float]]
"""What a client's evaluation answers, of the type that a Flower ``MetricRecord`` takes."""


class Routine(ABC):
    """A worker's resident model and data: a :class:`~fedunlearn.federation.client_trainer.ClientRoutine`.

    Loss and augmentation are the experiment's; what to keep of a model's outputs, the task says.
    """

    task: ClassVar[str]
    """Its name, as ``DataConfig.task`` has it."""

    def __init__(self, place: workspace.Workplace) -> None:
        self._place = place
        self._recipe = workspace.recipe_of(place.experiment, place.data)

    @property
    def model(self) -> FlatModel:
        """The resident model; its weights are whatever was loaded last."""
        return self._place.model

    def train(
        self, client: int, kind: str, config: Config, tensors: Mapping[str, Tensor] = MappingProxyType({})
    ) -> LocalResult:
        """Train the model in place on the client's data, or run the routine that the config names.

        PUF asks a client it forgets to train exactly as usual (the server negates), so both kinds are one: what is
        done otherwise, the config says.
        """
        if ROUTINE in config:
            return self._by_routine(client, config, tensors)
        images, targets = self._examples(client, config)
        if not len(targets):
            return LocalResult(0, 0.0)
        result = train_local(
            self.model,
            images,
            targets,
            self._settings(config),
            lr=float(config[LR]),
            generator=_generator(config, client),
            recipe=self._recipe,
        )
        return replace(result, ran=work_of(config)) if EPOCHS in config else result

    def _settings(self, config: Config) -> TrainConfig:
        """Return how the client trains: as the experiment says, but for what its job says."""
        settings = self._place.experiment.train
        if EPOCHS not in config:
            return settings
        if (epochs := int(config[EPOCHS])) < 1:
            raise UserError(f"{SERVER}: {EPOCHS} = {epochs}: must be at least 1")
        return replace(settings, local_epochs=epochs)

    def _by_routine(self, client: int, config: Config, tensors: Mapping[str, Tensor]) -> LocalResult:
        """Run the round's routine on the model, in place: F is what the client works with, R its other data.

        So F is what is to be forgotten, or of a client that trains all that it trains on.

        Nobody gives it held-out examples, with one client as little as with many: a client has its own data and no
        others, in a deployment as in a simulation, and the validation split, which is the server's, judges recovery
        and tuning. A method that needs some takes a part of R.
        """
        chosen = Chosen.loads(config[ROUTINE], modules_of(self._place.experiment))
        forget, retain = self._both(client, config)
        ran = chosen.dumps()  # as it was understood: the server holds it against what it asked for
        if not forget.size:
            return LocalResult(0, 0.0, ran)
        whose = str(Assignment.loads(config[ASSIGNMENT])) if ASSIGNMENT in config else f"client {client}"
        progress = RoutineProgress(f"{whose}: {chosen.name}")
        device, results = self.model.vector.device, dict[str, Tensor]()
        found = chosen.method(
            self.model,
            forget,
            retain,
            settings=chosen.settings,
            generator=torch_generator(int(config["seed"]), "routine", int(config["round"]), client),
            conditions=Conditions(
                progress=progress,
                augmentation=self._recipe.augmentation,
                loss=self._recipe.loss,
                pixel_std=self._place.data.pixel_std,
                tensors={name: tensor.to(device) for name, tensor in tensors.items()},
                results=results,
            ),
        )
        # Copies: a routine may leave a window into a model that is about to hold something else.
        extras = {name: tensor.detach().clone() for name, tensor in results.items()}
        self.model.load(found.vector, found.buffers())
        return LocalResult(forget.size, progress.loss, ran, extras)

    def _both(self, client: int, config: Config) -> tuple[Examples, Examples]:
        if ASSIGNMENT not in config:
            everything = Examples(*self._place.data.client(client))
            nothing = Examples(everything.images[:0], everything.labels[:0])
            return everything, nothing
        assignment = Assignment.loads(config[ASSIGNMENT])
        forget = Examples(*self._place.data.assigned(assignment))
        return forget, Examples(*self._place.data.assigned(assignment.rest))

    def train_stack(self, clients: Sequence[int], start: Tensor, config: Config) -> StackResult:
        """Train many clients in one stack, each on its own data and in its own order of batches.

        Raises
        ------
        NotStackableError
            If the model, or the task's loss, can only be computed for one client at a time.
        """
        rows = [self._place.data.client(client) for client in clients]
        return train_stack(
            self.model,
            start,
            [images for images, _ in rows],
            [targets for _, targets in rows],
            self._settings(config),
            lr=float(config[LR]),
            generators=(_generator(config, client) for client in clients),  # few are drawn from
            recipe=self._recipe,
        )

    def evaluate(self, client: int) -> Metrics:
        """Return ``num-examples``, and quality (percent) and loss of the model on the client's own training data."""
        images, targets = self._place.data.client(client)
        outputs = self._outputs(images, targets)
        return {
            "num-examples": len(targets),
            QUALITY[self.task]: quality(outputs),
            "loss": mean_loss(outputs),
        }

    def tally(self, client: int, config: Config | None = None) -> Tally | Withheld:
        """Count and sum what the model, as it is, makes of the client's own training data; it stays as it is.

        With an assignment in the config, of the data that it names; `client` may then be the number of a part.

        Never raises: nothing that goes wrong in measuring may stand in the way of being forgotten.
        """
        config = config or {}
        whose = "a client's part" if ASSIGNMENT in config else f"client {client}"
        try:
            if ASSIGNMENT in config:
                whose = str(Assignment.loads(config[ASSIGNMENT]))
            images, targets = self._examples(client, config)
            return tally_of(self._outputs(images, targets)) if len(targets) >= FEWEST else TOO_FEW
        except Exception as error:
            log(WARNING, "%s: could not measure its data", whose, exc_info=True)
            return Withheld(f"the measurement failed: {type(error).__name__}")

    def _examples(self, client: int, config: Config) -> tuple[Tensor, Tensor]:
        """Return the images and targets that a client works with: all its own, or what it is assigned."""
        if ASSIGNMENT not in config:
            return self._place.data.client(client)
        return self._place.data.assigned(Assignment.loads(config[ASSIGNMENT]))

    @abstractmethod
    def _outputs(self, images: Tensor, targets: Tensor) -> Scored:
        """Return what the model makes of these data, without augmentation."""


def _generator(config: Config, client: int) -> torch.Generator:
    return torch_generator(int(config["seed"]), "batches", int(config["round"]), client)
