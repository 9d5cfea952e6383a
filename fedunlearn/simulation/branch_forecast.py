"""What each branch of an experiment will do and cost: rounds, client-epochs, examples, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.server.branch import Branch
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.planned_rounds import kept, planned
from fedunlearn.unlearning.contract import Passes


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
    parts = {number: len(data.indices_of([number])) for number in data.parts}
    return [_branch(experiment, branch, data, parts) for branch in branches(experiment, seed)]


def _branch(
    experiment: Experiment, branch: Branch, data: FederatedData, parts: Mapping[int, int]
) -> BranchForecast:
    client_epochs = examples = 0.0
    sizes, epochs, passes = data.clients.sizes, experiment.train.local_epochs, _passes(branch)
    for plan, rounds in planned(experiment, branch):
        # Nobody trains and is forgotten in one round. Parts that overlap are counted as if they did not: a forecast.
        left_out = {k: sum(parts[number] for number in numbers) for k, numbers in plan.without.items()}
        seen = int(sizes[np.fromiter(plan.train, dtype=np.int64)].sum())
        seen -= sum(left_out.get(k, 0) for k in plan.train)
        client_epochs += rounds * epochs * len(plan.train)
        examples += rounds * epochs * seen
        for number in plan.forget:
            own = int(sizes[data.parts.owner(number)]) - left_out.get(number, 0)
            forget = parts.get(number, own)
            if passes is None:
                client_epochs += rounds * epochs
                examples += rounds * epochs * forget
            elif forget:
                retain = max(own - forget, 0)
                cost = passes.forget * forget + passes.retain * retain
                client_epochs += rounds * cost / (forget + retain)
                examples += rounds * cost
    return BranchForecast(
        branch=branch,
        rounds=branch.rounds,
        client_epochs=math.ceil(client_epochs),
        examples=math.ceil(examples),
        checkpoints=kept(branch, branch.first_round + 1),
    )


def _passes(branch: Branch) -> Passes | None:
    """Return how often whoever is forgotten goes over its data; None: it trains as usual."""
    chosen = Chosen.by(branch.method) if branch.method is not None else None
    return chosen.method.passes(chosen.settings) if chosen is not None else None
