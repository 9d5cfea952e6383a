"""What hostile clients do: each idea spoils the answers of clients that else train as everybody does."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedunlearn.data import FederatedData
from fedunlearn.federation.answers import FORGET, TRAIN, Answers, RoundWork
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.sums import Contribution, norm_of
from fedunlearn.randomness import torch_generator

Spoil = Callable[[Contribution, int, str], Contribution | None]
"""Takes an honest answer, the round and the kind of work; returns what is sent instead, None for silence."""

CHEERED = 0
"""The class that "class-bias" says everything is."""
DRIFTS_FOR = 10
"""Rounds in which "slow-drift" grows to its full length."""


def _like(c: Contribution, delta: Tensor) -> Contribution:
    return replace(c, delta=delta)


def honest(c: Contribution, round: int, kind: str) -> Contribution:
    """Send what was trained."""
    return c


def absent(c: Contribution, round: int, kind: str) -> None:
    """Send nothing, ever."""


def sign_flip(c: Contribution, round: int, kind: str) -> Contribution:
    """Send the opposite of what was trained."""
    return _like(c, -c.delta)


def reversed_eight_times(c: Contribution, round: int, kind: str) -> Contribution:
    """Send the opposite, eight times as long: within the bound of length."""
    return _like(c, -8 * c.delta)


def scale(c: Contribution, round: int, kind: str) -> Contribution:
    """Send a million times what was trained."""
    return _like(c, 1e6 * c.delta)


def constant(c: Contribution, round: int, kind: str) -> Contribution:
    """Send the same number for every weight, as long altogether as what was trained."""
    return _like(c, torch.full_like(c.delta, norm_of(c.delta) / math.sqrt(len(c.delta))))


def slow_drift(c: Contribution, round: int, kind: str) -> Contribution:
    """Add a direction that all hostile clients agree on: a tenth of the update's length, more in every round."""
    direction = torch.randn(c.delta.shape, generator=torch_generator(0, "drift"), dtype=c.delta.dtype)
    share = min(round, DRIFTS_FOR) / DRIFTS_FOR
    return _like(c, c.delta + direction * (share * norm_of(c.delta) / norm_of(direction)))


def weapon(c: Contribution, round: int, kind: str) -> Contribution:
    """Train honestly; asked to be forgotten, send what was learned 1,000 times over, for the server to negate."""
    return c if kind == TRAIN else _like(c, 1e3 * c.delta)


def zeros(c: Contribution, round: int, kind: str) -> Contribution:
    """Train honestly; asked to be forgotten, send nothing to forget by."""
    return c if kind == TRAIN else _like(c, torch.zeros_like(c.delta))


def opposite(c: Contribution, round: int, kind: str) -> Contribution:
    """Train honestly; asked to be forgotten, send the opposite, so that its negation trains once more."""
    return c if kind == TRAIN else _like(c, -c.delta)


def silent(c: Contribution, round: int, kind: str) -> Contribution | None:
    """Train honestly; asked to be forgotten, do not answer."""
    return c if kind == TRAIN else None


@dataclass(frozen=True)
class Idea:
    """One way to do harm.

    Attributes
    ----------
    spoil : callable
        What becomes of an honest answer.
    poisoned : bool
        Whether the hostile clients' labels are all :data:`CHEERED`.
    forgotten : bool
        Whether the hostile clients ask to be forgotten half-way.
    """

    spoil: Spoil
    poisoned: bool = False
    forgotten: bool = False


IDEAS: Mapping[str, Idea] = {
    "honest": Idea(honest),
    "absent": Idea(absent),
    "sign-flip": Idea(sign_flip),
    "sign-flip-x8": Idea(reversed_eight_times),
    "scale": Idea(scale),
    "constant": Idea(constant),
    "class-bias": Idea(honest, poisoned=True),
    "slow-drift": Idea(slow_drift),
    "forget-weapon": Idea(weapon, forgotten=True),
    "forget-poison": Idea(honest, poisoned=True, forgotten=True),
    "forget-zeros": Idea(zeros, forgotten=True),
    "forget-opposite": Idea(opposite, forgotten=True),
    "forget-silent": Idea(silent, forgotten=True),
}


class HostileTrainer:
    """An engine's trainer, some of whose clients are hostile.

    Parameters
    ----------
    inner
        Trains everybody honestly: a local grid's.
    hostile
        Who is not.
    spoil
        What they do.
    """

    def __init__(self, inner: LocalTrainer, hostile: Collection[int], spoil: Spoil) -> None:
        self._inner = inner
        self._hostile = hostile
        self._spoil = spoil

    def close(self) -> None:
        """Stop the workers."""
        self._inner.close()

    def train_round(self, work: RoundWork) -> Answers:
        """Train the round and spoil the answers of those who are hostile."""
        answers = self._inner.train_round(work)
        assert isinstance(answers.retained, list), "a live federation takes updates one by one"
        answers.retained = list(self._spoilt(answers, answers.retained, work, TRAIN))
        answers.forgetting = list(self._spoilt(answers, answers.forgetting, work, FORGET))
        return answers

    def _spoilt(
        self, answers: Answers, updates: list[Contribution], work: RoundWork, kind: str
    ) -> Iterator[Contribution]:
        for update in updates:
            sent: Contribution | None = update
            if update.client in self._hostile:
                sent = self._spoil(update, int(work.config["round"]), kind)
            if sent is None:
                answers.failed[update.client] = "did not answer"
                answers.norms.pop(update.client, None)
                continue
            if sent is not update and kind == TRAIN:
                answers.norms[update.client] = norm_of(sent.delta)
            yield sent


@contextmanager
def poisoned(data: FederatedData, clients: Collection[int]) -> Iterator[None]:
    """Let all labels of these clients be :data:`CHEERED` meanwhile."""
    rows = torch.from_numpy(data.indices_of(sorted(clients)))
    before = data.train_labels[rows].clone()
    data.train_labels[rows] = CHEERED
    try:
        yield
    finally:
        data.train_labels[rows] = before
