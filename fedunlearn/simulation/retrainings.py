"""How many models are retrained with other seeds beside each retrained one, where ``[floor]`` leaves it open.

Three where that is cheap, otherwise one. Cheap is what adds no more than ``CHEAP`` seconds of training on a nominal
core, counted from the experiment, its data and its model alone: the choice is the same on every machine, or the
scorecard would not be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from fedunlearn import workspace
from fedunlearn.config import Experiment, FloorConfig
from fedunlearn.data import FederatedData
from fedunlearn.plurals import counted
from fedunlearn.simulation.branches import branches

FEW, SEVERAL = 1, 3
CHEAP = 60.0
"""Seconds."""
FLOPS = 50e9
"""Floating-point operations per second of the nominal core."""
OVERHEAD = 20e-6
"""Seconds that it spends on an example besides."""
PASSES = 3
"""Forward, and backward to activations and to weights."""


class Retrainings(NamedTuple):
    """An experiment that says how many retrainings there are, and why so many, in one line."""

    experiment: Experiment
    why: str


def choose_retrainings(experiment: Experiment) -> Retrainings:
    """Return the experiment with its further retrainings chosen; one that names them is returned as it is."""
    given = experiment.floor.given_retrainings
    if experiment.live or given is not None:
        return Retrainings(experiment, "" if given is None else f"{_words(given)}, as set by [floor]")
    data = workspace.data_of(experiment, experiment.seeds[0])
    seconds = (SEVERAL - FEW) * _examples(experiment, data) * _seconds_per_example(experiment, data)
    cheap = seconds <= CHEAP
    number = SEVERAL if cheap else FEW
    takes = f"{SEVERAL - FEW} more than {FEW} {'take' if cheap else 'would take'} about {seconds:,.0f} s"
    why = (
        f"{_words(number)}: {takes} on a core of {FLOPS / 1e9:.0f} GFLOP/s, and up to {CHEAP:.0f} s is cheap"
    )
    return Retrainings(replace(experiment, floor=FloorConfig(given_retrainings=number)), why)


def _examples(experiment: Experiment, data: FederatedData) -> float:
    """Return the training examples of one further retraining of everything, as if nobody were left out of them."""
    rounds = sum(
        branch.last_round
        for seed in experiment.seeds
        for branch in branches(experiment, seed)
        if branch.kind == "retrain"
    )
    share = experiment.federation.slots / experiment.federation.num_clients
    return rounds * share * len(data.train_labels) * experiment.train.local_epochs


def _seconds_per_example(experiment: Experiment, data: FederatedData) -> float:
    module = workspace.new_model(experiment, data, seed=0).module.eval()
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        module(data.test_images[:1])
    return OVERHEAD + PASSES * float(counted.get_total_flops()) / FLOPS


def _words(number: int) -> str:
    return f"{counted(number, 'further retraining')} of each retrained model"
