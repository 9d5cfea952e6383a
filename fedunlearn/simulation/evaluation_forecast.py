"""How many examples an experiment will evaluate, and how long one takes, worked out without running it."""

from __future__ import annotations

import time
from typing import Any

import torch

from fedunlearn import workspace
from fedunlearn.config import Experiment, RequestsConfig
from fedunlearn.data import FederatedData
from fedunlearn.evaluation.outputs import predict
from fedunlearn.evaluation.segmentation import segment
from fedunlearn.server.branch import Branch
from fedunlearn.server.plans_ahead import unlearnings
from fedunlearn.simulation.branches import branches, retrained_round
from fedunlearn.simulation.planned_rounds import kept_or_multiple
from fedunlearn.simulation.schedule import Schedule

PROBE_BATCH = 64
"""Most examples that the probe evaluates at once."""


def evaluated_with(experiment: Experiment, seed: int, data: FederatedData) -> int:
    """Return how many examples models are run over at most in a seed: after rounds, and for the scorecard's rows."""
    if experiment.requests is not None:
        return (experiment.train.rounds + 1) * _measured_live(experiment.requests, data)
    everything = len(data.train_labels) + len(data.validation_labels) + len(data.test_labels)
    after_rounds = sum(evaluated_in_rounds(branch, data) for branch in branches(experiment, seed))
    return after_rounds + everything * models_measured(experiment, seed)


def _measured_live(rules: RequestsConfig, data: FederatedData) -> int:
    """Return how many examples a round of a live federation is measured on: the server's, or the clients' own."""
    return len(data.validation_labels) if rules.validation == "server" else len(data.train_labels)


def evaluated_in_rounds(branch: Branch, data: FederatedData) -> int:
    """Return how many examples the server evaluates after the rounds of a branch, initial weights included.

    Validation and test data in every round, training data as ``fedunlearn.server.evaluation`` says: where
    weights are kept, and in about ten rounds besides.
    """
    held_out = len(data.validation_labels) + len(data.test_labels)
    first = branch.first_round + 1 if branch.first_round else 0
    whole = 0
    if branch.forget or branch.watched:
        whole = kept_or_multiple(branch, first, every=max(1, branch.last_round // 10))
    return (branch.last_round - first + 1) * held_out + whole * len(data.train_labels)


def models_measured(experiment: Experiment, seed: int) -> int:
    """Return how many models the scorecard's rows are about, if every request recovers halfway to the cap."""
    halfway = -(-experiment.recover.max_rounds // 2)
    records: dict[str, dict[str, Any]] = {
        branch.name: {
            "last_round": branch.last_round,
            "requests": [
                {
                    "id": request.id,
                    "unlearned_round": found.last_round,
                    "ended_round": max(found.last_round, request.at_round + halfway),
                    "outcome": "recovered",
                }
                for found in unlearnings(experiment, branch)
                for request in found.requests
            ],
        }
        for branch in branches(experiment, seed)
    }
    schedule = Schedule(experiment, seed, records)
    found = set()
    for branch, moment, _, _, round, *_ in schedule:
        beside = retrained_round(experiment, round)
        found.add((branch.name, round))
        found |= {(each.name, beside) for each in (schedule.retrain(moment), *schedule.floors(moment))}
    return len(found)


def probe_evaluation(experiment: Experiment, seconds: float = 0.3) -> float:
    """Return the seconds that evaluating an example takes: the model's run over it, and of masks their Dice."""
    torch.set_num_threads(experiment.engine.threads_per_client)
    data = workspace.data_of(experiment, experiment.seeds[0])
    module = workspace.new_model(experiment, data, seed=0).module
    few = slice(0, PROBE_BATCH)  # larger batches take memory that there may not be
    images, masks = data.test_images[few], data.test_labels[few]

    def step() -> None:
        if data.task == "segmentation":
            segment(module, images, masks, batch_size=PROBE_BATCH)
        else:
            predict(module, images, batch_size=PROBE_BATCH)

    step()  # first calls allocate and choose kernels
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return (time.perf_counter() - began) / (steps * len(images))
