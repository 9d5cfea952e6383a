"""What each branch of an experiment will do and cost: rounds, client-epochs, examples, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.simulation.branches import Branch, branches
from fedunlearn.simulation.planned_rounds import kept, planned


@dataclass(frozen=True)
class BranchForecast:
    """One branch's share.

    Attributes
    ----------
    rounds : int
        At most; a timeline may stop before.
    client_epochs : int
        Local epochs over all clients and rounds.
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
    parts = {number: len(data.indices_of([number])) for number in data.parts}
    return [_branch(experiment, branch, data, parts) for branch in branches(experiment, seed)]


def _branch(
    experiment: Experiment, branch: Branch, data: FederatedData, parts: Mapping[int, int]
) -> BranchForecast:
    clients = examples = 0
    sizes = data.clients.sizes
    for plan, rounds in planned(experiment, branch):
        # Nobody trains and is forgotten in one round. Parts that overlap are counted as if they did not: a forecast.
        seen = int(sizes[np.fromiter(plan.train, dtype=np.int64)].sum())
        seen += sum(parts[number] if number in parts else int(sizes[number]) for number in plan.forget)
        seen -= sum(parts[number] for left_out in plan.without.values() for number in left_out)
        clients += rounds * (len(plan.train) + len(plan.forget))
        examples += rounds * seen
    epochs = experiment.train.local_epochs
    return BranchForecast(
        branch=branch,
        rounds=branch.rounds,
        client_epochs=clients * epochs,
        examples=examples * epochs,
        checkpoints=kept(branch, branch.first_round + 1),
    )
