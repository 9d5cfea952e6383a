"""What each branch of an experiment will do and cost: rounds, client-epochs, examples, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.simulation.branches import Branch, branches
from fedunlearn.simulation.local_work import LocalWork, whole
from fedunlearn.simulation.planned_rounds import kept, planned


@dataclass(frozen=True)
class BranchForecast:
    """One branch's share.

    Attributes
    ----------
    rounds : int
        At most; a timeline may stop before.
    client_epochs : int
        Local epochs over all clients and rounds; of a local routine its passes over the client's data, rounded up.
    examples : int
        Training examples seen.
    checkpoints : int
        Checkpoints kept.
    """

    branch: Branch
    rounds: int
    client_epochs: int
    examples: int
    checkpoints: int


def forecast_branches(experiment: Experiment, seed: int, data: FederatedData) -> list[BranchForecast]:
    """Return the share of each branch of a seed, whose data these are."""
    work = LocalWork(experiment, data)
    return [_branch(experiment, branch, data, work) for branch in branches(experiment, seed)]


def _branch(experiment: Experiment, branch: Branch, data: FederatedData, work: LocalWork) -> BranchForecast:
    client_epochs = examples = 0.0
    sizes, epochs = data.clients.sizes, experiment.train.local_epochs
    for plan, rounds in planned(experiment, branch):
        # Nobody trains and is forgotten in one round.
        seen = int(sizes[np.fromiter(plan.train, dtype=np.int64)].sum())
        seen -= sum(work.examples_of(plan.without.get(k, ())) for k in plan.train)
        client_epochs += rounds * epochs * len(plan.train)
        examples += rounds * epochs * seen
        for number in plan.forget:
            own = work.forgetting(branch, number, plan.without.get(number, ()))
            client_epochs += rounds * own.epochs
            examples += rounds * own.examples
    return BranchForecast(
        branch=branch,
        rounds=branch.rounds,
        client_epochs=whole(client_epochs),
        examples=whole(examples),
        checkpoints=kept(branch, branch.first_round + 1),
    )
