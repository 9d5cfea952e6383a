"""Which federations an experiment consists of, and which of them forks from which.

The original is trained once per seed. Every (method, target set) forks from its checkpoint; the retrained oracle
is trained once per target set, and again with other training seeds for the noise floor, as often as ``[floor]`` says.
A timeline's oracles are one per moment of request: Oracle(e) never sees anything forgotten in requests 1…e.

A federation trains on while it forgets and recovers, so the retrained one is as many rounds old as the model it is
held against. On pooled data, with one client, nothing trains on: as in the papers of centralised unlearning the
retrained model has as many epochs as the original, whenever a method's model is held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from fedunlearn.config import Experiment, MethodConfig
from fedunlearn.randomness import derive_seed
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


@dataclass(frozen=True)
class Moment:
    """What is forgotten together: a target set, or all of a timeline's requests of one round.

    Attributes
    ----------
    index : int
    at_round : int
        Round after which it is requested.
    requests : tuple[ForgetRequest, ...]
    forgotten : tuple[int, ...]
        Everything forgotten once it is done: its own clients and, in a timeline, all earlier ones.
    """

    index: int
    at_round: int
    requests: tuple[ForgetRequest, ...]
    forgotten: tuple[int, ...]


def moments(experiment: Experiment, seed: int) -> tuple[Moment, ...]:
    """Return the target sets of a seed, or a timeline's moments in order."""
    rounds = experiment.train.rounds
    if experiment.branching:
        return tuple(
            Moment(i, rounds, (ForgetRequest(f"target-{i}", clients, rounds),), clients)
            for i, clients in enumerate(experiment.target_sets(seed))
        )
    requests = [
        ForgetRequest(f"request-{i}", numbers, f.at_round)
        for i, (f, numbers) in enumerate(zip(experiment.forget, experiment.forget_sets, strict=True), 1)
    ]
    requests.sort(key=lambda r: r.at_round)
    found: list[Moment] = []
    forgotten: set[int] = set()
    for at_round, group in groupby(requests, key=lambda r: r.at_round):
        together = tuple(group)
        forgotten.update(k for r in together for k in r.clients)
        found.append(Moment(len(found), at_round, together, tuple(sorted(forgotten))))
    return tuple(found)


def is_pooled(experiment: Experiment) -> bool:
    """Whether one client holds all data, and target sets are forgotten once training is over."""
    return experiment.branching and experiment.federation.num_clients == 1


def retrained_round(experiment: Experiment, round: int) -> int:
    """Return the round of the retrained model that a model of this round is held against."""
    return min(round, experiment.train.rounds) if is_pooled(experiment) else round


def floor_seed(seed: int, number: int = 0) -> int:
    """Return the training seed of a further retraining, counted from 0; 63 bits, to fit a message's integers."""
    return derive_seed(seed, "floor", number) >> 1


def floor_name(moment: int, seed: int, number: int) -> str:
    """Return the name of a further retraining's branch, counted from 0."""
    # A method's branch, whatever its label, ends with its seed.
    return f"floor-{moment}-s{seed}" + (f"-{number + 1}" if number else "")


def branches(experiment: Experiment, seed: int) -> tuple[Branch, ...]:
    """Return all federations of one experiment seed, each after those it needs; of a live one, itself."""
    if experiment.live:
        return (live_branch(experiment),)
    rounds, cap = experiment.train.rounds, experiment.recover.max_rounds
    all_moments = moments(experiment, seed)
    timeline = not experiment.branching
    last = max(rounds, all_moments[-1].at_round + cap)
    original = Branch(
        name=f"original-s{seed}",
        kind="original",
        label="original",
        seed=seed,
        training_seed=seed,
        last_round=rounds,
        keep_from=rounds,
        keep=frozenset(m.at_round for m in all_moments),
        watched=tuple(sorted({k for m in all_moments for k in m.forgotten})),
    )
    found = [original]
    for moment in all_moments:
        final = moment is all_moments[-1] or not timeline
        retrain = Branch(
            name=f"retrain-{moment.index}-s{seed}",
            kind="retrain",
            label="retrain",
            seed=seed,
            training_seed=seed,
            target=moment.index,
            excluded=moment.forgotten,
            forget=moment.forgotten,
            last_round=retrained_round(experiment, max(last if final else 0, moment.at_round + cap, rounds)),
            keep_from=moment.at_round,
        )
        found.append(retrain)
        for number in range(experiment.floor.retrainings):
            name, training_seed = floor_name(moment.index, seed, number), floor_seed(seed, number)
            found.append(
                replace(retrain, name=name, kind="floor", label="floor", training_seed=training_seed)
            )
    for method in experiment.methods:
        for asked in [all_moments] if timeline else [(m,) for m in all_moments]:
            target = None if timeline else asked[0].index
            found.append(
                Branch(
                    name=f"{method.label}-{'timeline' if timeline else target}-s{seed}",
                    kind="method",
                    label=method.label,
                    seed=seed,
                    training_seed=seed,
                    target=target,
                    forget=asked[-1].forgotten,
                    requests=tuple(r for m in asked for r in m.requests),
                    method=method,
                    fork_from=original.name,
                    first_round=asked[0].at_round,
                    last_round=last,
                    keep_from=asked[0].at_round,
                    oracles=tuple(f"retrain-{m.index}-s{seed}" for m in asked),
                    stop_when_recovered=timeline,
                )
            )
    return tuple(found)


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
