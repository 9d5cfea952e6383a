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

from fedunlearn.config import Experiment
from fedunlearn.randomness import derive_seed
from fedunlearn.server.branch import Branch, ForgetRequest, live_branch


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
