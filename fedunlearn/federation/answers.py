"""What a round asks of the clients, what comes back, and the checks that an update passes before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fedunlearn.errors import NOT_FINITE
from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.federation.jobs import EPOCHS, ROUTINE, Job
from fedunlearn.federation.shown import shown
from fedunlearn.federation.sums import BlockSum, Contribution, all_finite
from fedunlearn.models.state import ModelState
from fedunlearn.parts import Assignment
from fedunlearn.plurals import counted

TRAIN = "train"
FORGET = "train.forget"
"""The kinds of work a client is asked for, as Flower's message types name them."""

TALLY = "tally"
"""Entry of a round's config, only in live federations: whom it forgets sends a tally of the model it receives."""

ASSIGNMENT = "assignment"
"""Entry of one client's config: what of its data it works with (:class:`fedunlearn.parts.Assignment`)."""

TENSORS, EXTRAS = "tensors", "extras"
"""Records of arrays: what a job sends along in a message, and what comes back in a reply."""

NUMBER = "number"
"""Beside an assignment, and in the answer to it: the number of the client or part that it is about."""

WORK = "work"
"""Record of every reply to training: what it carries, and what the client ran for it."""

CARRIES = "carries"
UPDATE, WEIGHTS = "update", "weights"
"""In it: whether its arrays are w_k − w, as they must be, or w_k."""

RAN = "ran"
"""In it: what was run, as :func:`work_of` has it."""

DID_NOT_ANSWER = "did not answer"
REFUSED = "refused: "
"""How a reason begins where a client answered, and what it answered does not count; the rest is one short line."""

OTHER_WORK = f"{REFUSED}not what was asked"
"""How it begins where the client did something else than was asked: asking again is of little use."""

MOST_EXAMPLES = 2**31 - 1
"""More rows than this no client has: sums of so many numbers are exact, and so is their product with a weight."""

VARIANCE = "running_var"
"""How PyTorch calls the buffers of variances, at the end of their names."""

Config = Mapping[str, Any]
"""What a client is told beside the weights: ``round``, ``lr``, ``seed``, and what its job says."""


@dataclass(frozen=True)
class RoundWork:
    """What a round asks of the clients.

    Attributes
    ----------
    state : ModelState
        The global model that everyone starts from; not to be changed.
    config : Config
    train, forget : tuple[int, ...]
        Clients that train and are retained, and clients, or parts of clients' data, whose forgetting happens now;
        ascending. So a client may take part twice: retained with one part of its data, forgotten with another.
    individually : bool
        Whether the retained updates are wanted one by one instead of summed.
    norms : bool
        Whether the norms of the retained updates are wanted.
    tolerant : bool
        Whether a client that runs out of memory is one client that failed, and not the end of the run.
    assignments : Mapping[int, Assignment]
        What those of ``train`` and ``forget`` work with who do not simply work with all of their data.
    jobs : Mapping[str, Job]
        Kind → what those of that kind do; of a kind that is not there they train as usual.
    """

    state: ModelState
    config: Config
    train: tuple[int, ...]
    forget: tuple[int, ...] = ()
    individually: bool = False
    norms: bool = False
    tolerant: bool = False
    assignments: Mapping[int, Assignment] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    def start(self, kind: str) -> ModelState:
        """Return what those of a kind start from."""
        job = self.jobs.get(kind)
        return self.state if job is None or job.start is None else replace(self.state, vector=job.start)

    def told(self, kind: str) -> Config:
        """Return what all those of a kind are told."""
        job = self.jobs.get(kind)
        return self.config if job is None else {**self.config, **job.told}

    def asked(self, number: int, kind: str) -> ClientWork:
        """Return what one client is asked for."""
        job = self.jobs.get(kind)
        config = told(self.told(kind), self.assignments.get(number))
        return ClientWork(number, kind, config, self.start(kind), job.sent_to(number) if job else {})


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
    tensors : Mapping[str, Tensor]
        What its job sends along; not to be changed.
    """

    number: int
    kind: str
    config: Config
    start: ModelState
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def told(config: Config, assignment: Assignment | None) -> Config:
    """Return what a client is told with an assignment."""
    return config if assignment is None else {**config, ASSIGNMENT: assignment.dumps()}


def work_of(config: Config) -> str:
    """Return what a client runs that is told this: ``train``, for how many epochs if that is said, or a routine."""
    if ROUTINE in config:
        return str(config[ROUTINE])
    return f"{TRAIN} for {counted(int(config[EPOCHS]), 'epoch')}" if EPOCHS in config else TRAIN


@dataclass
class Answers:
    """What came back in a round.

    Attributes
    ----------
    retained : BlockSum or list[Contribution]
        From the clients that trained; a list, in client order, only for strategies that need single updates.
    forgetting : list[Contribution]
        From the clients to forget, in client order.
    failed : dict[int, str]
        Client → why its answer is missing or refused (a traceback, or one line).
    losses : dict[int, float]
        Client → mean training loss it reported: its task's.
    norms : dict[int, float]
        Client that trained → ‖Δ‖₂ of its update, where asked for.
    tallies : dict[int, Tally or Withheld]
        Client to forget → what the round's starting weights make of its data; only where the config has ``tally``.
    extras : dict[int, Mapping[str, Tensor]]
        Client → the tensors that it has sent beside its update, where its job asks for some.
    """

    retained: BlockSum | list[Contribution]
    forgetting: list[Contribution] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    norms: dict[int, float] = field(default_factory=dict)
    tallies: dict[int, Tally | Withheld] = field(default_factory=dict)
    extras: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def refuse(self, clients: Mapping[int, str]) -> None:
        """Take out what came from these clients, and note why; only where single updates are at hand."""
        if not clients:
            return
        assert isinstance(self.retained, list)
        self.retained = [c for c in self.retained if c.client not in clients]
        self.forgetting = [c for c in self.forgetting if c.client not in clients]
        for found in (self.losses, self.norms, self.tallies, self.extras):
            for client in clients:
                found.pop(client, None)
        self.failed |= clients

    def sort(self) -> Answers:
        """Bring everything into client order, so that nothing reported depends on the order of arrival."""
        self.losses = dict(sorted(self.losses.items()))
        self.failed = dict(sorted(self.failed.items()))
        self.norms = dict(sorted(self.norms.items()))
        self.tallies = dict(sorted(self.tallies.items()))
        self.extras = dict(sorted(self.extras.items()))
        self.forgetting.sort(key=lambda c: c.client)
        if isinstance(self.retained, list):
            self.retained.sort(key=lambda c: c.client)
        return self


class RoundTrainer(Protocol):
    """An engine's direct way to train a round: no message per client, retained updates summed on the way.

    A Grid that has one carries it as its attribute ``trainer``.
    """

    def train_round(self, work: RoundWork) -> Answers:
        """Train all clients of the round; who failed is in ``failed`` and in no sum."""
        ...


def unsound(update: ModelState, num_examples: int, like: ModelState) -> str:
    """Say what is wrong with a client's update, or return an empty string."""
    if num_examples < 1:
        return f"num-examples = {num_examples}, must be at least 1"
    if num_examples > MOST_EXAMPLES:
        return f"num-examples = {num_examples}, must be at most {MOST_EXAMPLES}"
    if update.vector.shape != like.vector.shape:
        return f"update of shape {tuple(update.vector.shape)}, the model's is {tuple(like.vector.shape)}"
    if update.vector.dtype != like.vector.dtype:
        return f"update of {update.vector.dtype}, the model's is {like.vector.dtype}"
    if update.buffers.keys() != like.buffers.keys():
        return f"buffers {sorted(update.buffers)}, the model's are {sorted(like.buffers)}"
    for name, buffer in update.buffers.items():
        expected = like.buffers[name]
        if (buffer.shape, buffer.dtype) != (expected.shape, expected.dtype):
            return (
                f"buffer {name} of shape {tuple(buffer.shape)} and {buffer.dtype}, "
                f"the model's is {tuple(expected.shape)} and {expected.dtype}"
            )
        if not torch.isfinite(buffer).all():
            return f"buffer {name} {NOT_FINITE}"
        if name.endswith(VARIANCE) and (buffer < 0).any():
            return f"buffer {name} holds a variance below 0"
    return "" if all_finite(update.vector) else f"update {NOT_FINITE}"


def unsound_extras(extras: Mapping[str, Tensor], returns: Mapping[str, int]) -> str:
    """Say what is wrong with the tensors beside an update, or return an empty string.

    Parameters
    ----------
    returns
        The names and lengths that were asked for.
    """
    if extras.keys() != returns.keys():
        return f"extras {shown(sorted(extras))}, the job's are {sorted(returns)}"
    for name, length in returns.items():
        extra = extras[name]
        if (tuple(extra.shape), extra.dtype) != ((length,), torch.float32):
            found = f"shape {tuple(extra.shape)} and {extra.dtype}"
            return f"extra {name!r} of {found}, the job's is {(length,)} and {torch.float32}"
        if not all_finite(extra):
            return f"extra {name!r} {NOT_FINITE}"
    return ""
