"""A client's work in a round, whatever the engine: load the weights, train them, see how far they have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from fedunlearn.errors import UserError
from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.federation.answers import FORGET, TALLY, ClientWork, Config, unsound_extras, work_of
from fedunlearn.federation.jobs import RETURNS, not_flat
from fedunlearn.json_text import loads_object
from fedunlearn.models.state import ModelState
from fedunlearn.training import LocalResult

if TYPE_CHECKING:
    from fedunlearn.federation.client_trainer import ClientRoutine

SERVER = "the message of the server"
"""Where a client has read what it refuses."""


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
    extras : Mapping[str, Tensor]
        What its job sends back beside the update.
    """

    update: ModelState
    num_examples: int
    loss: float
    ran: str
    tally: Tally | Withheld | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


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
    return Done(update, result.num_examples, result.loss, result.ran, tally, result.extras)


def train_only(trainer: ClientRoutine, asked: ClientWork) -> LocalResult:
    """Do the part of it between loading what the client starts from and measuring the update.

    Raises
    ------
    UserError
        The job sends along what can be no job's, or its routine leaves other results than it asks for.
    """
    if why := not_flat(asked.tensors):
        raise UserError(f"{SERVER}: {why}")
    returns = returns_in(asked.config)
    result = trainer.train(asked.number, asked.kind, asked.config, asked.tensors)
    counts = result.num_examples > 0 and result.ran == work_of(asked.config)
    if counts and (why := unsound_extras(result.extras, returns)):
        raise UserError(why)
    return result


def returns_in(config: Config) -> dict[str, int]:
    """Return which tensors a client is asked to send back: name → length.

    Raises
    ------
    UserError
    """
    if RETURNS not in config:
        return {}
    returns = loads_object(str(config[RETURNS]), f"{SERVER}: {RETURNS}")
    if wrong := [name for name, length in returns.items() if type(length) is not int or length < 1]:
        raise UserError(f"{SERVER}: {RETURNS}: the length of {wrong[0]!r} must be a whole number, at least 1")
    return returns
