"""A client's work in a round, whatever the engine: the global weights are loaded, trained on, and compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.federation.answers import FORGET, TALLY, Config
from fedunlearn.models.state import ModelState
from fedunlearn.training import LocalResult

if TYPE_CHECKING:
    from fedunlearn.federation.client_trainer import ClientRoutine


@dataclass(frozen=True)
class ClientWork:
    """What a round asks of one client.

    Attributes
    ----------
    number : int
        Of the client, or of the part of its data that this is about.
    kind : str
        ``train`` or ``train.forget``.
    config : Mapping
        What it is told.
    start : ModelState
        What it starts from, and what its update is measured from; not to be changed.
    """

    number: int
    kind: str
    config: Config
    start: ModelState


@dataclass(frozen=True)
class Done:
    """What a client has done.

    Attributes
    ----------
    update : ModelState
        w_k − w, and the buffers as they are afterwards.
    num_examples : int
    loss : float
        Mean training loss.
    ran : str
        What was run.
    tally : Tally or Withheld or None
        What the weights that it started from make of its data, where it is asked for that.
    """

    update: ModelState
    num_examples: int
    loss: float
    ran: str
    tally: Tally | Withheld | None = None


def do_work(trainer: ClientRoutine, asked: ClientWork) -> Done:
    """Do what a client is asked for, on the trainer's model, which holds anything afterwards.

    What the client's code raises is raised here: a :class:`~fedunlearn.errors.UserError` says in one line why the
    client cannot do what it is asked for.
    """
    model, start = trainer.model, asked.start
    model.load(start.vector, start.buffers)
    measured = asked.kind == FORGET and bool(asked.config.get(TALLY))
    # Before training changes the model.
    tally = trainer.tally(asked.number, asked.config) if measured else None
    result = train_only(trainer, asked)
    update = ModelState(model.vector - start.vector, model.buffers())
    return Done(update, result.num_examples, result.loss, result.ran, tally)


def train_only(trainer: ClientRoutine, asked: ClientWork) -> LocalResult:
    """Do the part of it between loading what the client starts from and measuring the update."""
    return trainer.train(asked.number, asked.kind, asked.config)
