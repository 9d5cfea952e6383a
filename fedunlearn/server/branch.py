"""One federation of an experiment, as the round loop is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedunlearn.config import Experiment, MethodConfig
from fedunlearn.requests import LIVE_BRANCH

Kind = Literal["original", "retrain", "floor", "method"]


@dataclass(frozen=True)
class ForgetRequest:
    """A request as the experiment scripts it; it arrives once ``at_round`` is complete."""

    id: str
    clients: tuple[int, ...]
    at_round: int


@dataclass(frozen=True)
class Branch:
    """One federation of an experiment.

    Attributes
    ----------
    name : str
        Unique in the experiment; names files.
    kind : str
        ``original``, ``retrain``, ``floor`` (retrained with another training seed) or ``method``.
    label : str
        Name of its rows in the scorecard.
    seed, training_seed : int
        The experiment seed (data, partition, targets), and the one that weights, batches and sampling are
        drawn from: the same but for ``floor``.
    target : int or None
        Number of the target set, or of the moment of request in a timeline (for oracles).
    excluded : tuple[int, ...]
        Clients that never take part (oracles).
    forget : tuple[int, ...]
        All clients that this branch is about: what its forget split consists of.
    watched : tuple[int, ...]
        Clients whose data the original is measured on, one by one: those that will be forgotten.
    requests : tuple[ForgetRequest, ...]
        What a method is asked.
    method : MethodConfig or None
    fork_from : str or None
        Branch whose checkpoint of ``first_round`` it starts from; None: from the initial weights.
    first_round, last_round : int
        Rounds behind it at the start; rounds at the end, unless it stops before.
    keep_from : int
        Checkpoints of this and all later rounds are kept.
    keep : frozenset[int]
        Earlier rounds kept as well.
    oracles : tuple[str, ...]
        Retrain branches that its recovery is judged by.
    stop_when_recovered : bool
    """

    name: str
    kind: Kind
    label: str
    seed: int
    training_seed: int
    last_round: int
    target: int | None = None
    excluded: tuple[int, ...] = ()
    forget: tuple[int, ...] = ()
    watched: tuple[int, ...] = ()
    requests: tuple[ForgetRequest, ...] = ()
    method: MethodConfig | None = None
    fork_from: str | None = None
    first_round: int = 0
    keep_from: int = 0
    keep: frozenset[int] = frozenset()
    oracles: tuple[str, ...] = ()
    stop_when_recovered: bool = False

    @property
    def rounds(self) -> int:
        """Most rounds it can take."""
        return self.last_round - self.first_round

    def keeps(self, round: int) -> bool:
        """Whether the checkpoint of a round is kept for good."""
        return round >= self.keep_from or round in self.keep


def live_branch(experiment: Experiment) -> Branch:
    """Return the one federation of a live experiment; its requests arrive while it runs, and it ends after them."""
    (seed,), (method,) = experiment.seeds, experiment.methods
    return Branch(
        name=LIVE_BRANCH,
        kind="method",
        label=method.label,
        seed=seed,
        training_seed=seed,
        method=method,
        last_round=experiment.train.rounds,
        stop_when_recovered=True,
    )
