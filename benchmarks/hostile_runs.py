"""One live federation with hostile clients, or with honest ones that ask to be forgotten, from start to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.hostile_clients import IDEAS, HostileTrainer, poisoned
from fedunlearn import config, workspace
from fedunlearn.config import Experiment
from fedunlearn.evaluation.accuracy import quality
from fedunlearn.evaluation.outputs import collect
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.live.evaluation import evaluation_of
from fedunlearn.live.service import serve_live
from fedunlearn.models.state import ModelState
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.branch import live_branch
from fedunlearn.server.rounds import QuorumMissedError, RoundReport
from fedunlearn.simulation.engines import open_grid

EXPERIMENT = """
name = "hostile"
seeds = [1]
[data]
source = "digits"
[federation]
num-clients = 10
[model]
name = "mlp"
hidden = [32]
[train]
rounds = 100
lr = 0.3
lr-decay = 0.97
batch-size = 16
[[method]]
name = "puf"
scale = 1.0
[recover]
until = "reference-accuracy"
epsilon = 1.0
max-rounds = 20
[requests]
deadline = 3
"""
"""Digits of scikit-learn, 1,797 of 8 × 8 pixels, and a network of 2,410 weights."""


@dataclass(frozen=True)
class Outcome:
    """What became of a federation.

    Attributes
    ----------
    accuracy : float
        Of the last model, on the test split, percent.
    refused : Mapping[int, int]
        Client → the first round in which its answer was refused by name.
    refusals : int
        Answers that were refused.
    requests : tuple[str, ...]
        How each request ended, in order of arrival.
    rounds : int
        Up to the last checkpoint.
    diverged : bool
        Whether no more than half of the clients could train from that any more: the server has stopped.
    seconds : float
    """

    accuracy: float
    refused: Mapping[int, int]
    refusals: int
    requests: tuple[str, ...]
    rounds: int
    diverged: bool
    seconds: float


def experiment_of(*settings: str) -> Experiment:
    """Return the experiment with other settings, as after ``--set``: "train.rounds=10"."""
    return config.loads(EXPERIMENT, "the experiment of benchmarks.hostile", overrides=settings)


def federate(
    experiment: Experiment,
    *,
    idea: str = "honest",
    hostile: Collection[int] = (),
    ask_at: Mapping[int, Collection[int]] | None = None,
) -> Outcome:
    """Run a live federation to its end.

    Parameters
    ----------
    experiment
        A live one.
    idea
        What the hostile clients do, see :data:`benchmarks.hostile_clients.IDEAS`.
    hostile
        Their numbers.
    ask_at
        Round → clients that ask to be forgotten in it, each by a request of its own.
    """
    seed = experiment.seeds[0]
    torch.set_num_threads(experiment.engine.threads_per_client)
    data = workspace.data_of(experiment, seed)
    chosen = IDEAS[idea]
    asked = dict(ask_at or {})
    refused: dict[int, int] = {}
    refusals, diverged = 0, False
    clock = _Clock()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "requests.sqlite", clock=clock) as ledger:
        folder = Path(name)
        file = folder / "experiment.toml"
        file.write_text(config.to_toml(experiment), encoding="utf-8")
        intake = Intake(ledger, num_clients=experiment.federation.num_clients)
        checkpoints = Checkpoints(folder / "checkpoints", LIVE_BRANCH)

        def observe(report: RoundReport) -> None:
            nonlocal refusals
            for client, why in report.failed.items():
                if why.startswith("refused: "):
                    refused.setdefault(client, report.round)
                    refusals += 1
            for client in asked.pop(report.round, ()):
                intake.ask([client], source="cli", actor="operator:benchmark")

        with (
            poisoned(data, hostile) if chosen.poisoned else nullcontext(),
            open_grid(experiment, str(file), seed) as grid,
        ):
            grid.trainer = HostileTrainer(grid.trainer, hostile, chosen.spoil)  # type: ignore[attr-defined]
            try:
                serve_live(
                    grid,
                    experiment,
                    ledger=ledger,
                    checkpoints=checkpoints,
                    folder=folder,
                    evaluate=evaluation_of(experiment, data=lambda: data),
                    holder="benchmark",
                    observe=observe,
                    data=data,
                    clock=clock,
                    pause=clock.pause,
                )
            except QuorumMissedError:
                diverged = True
        last = checkpoints.latest()
        assert last is not None
        requests = tuple(record.state for record in ledger.requests(LIVE_BRANCH))
    accuracy = test_accuracy(experiment, ModelState(last.vector, last.buffers))
    return Outcome(accuracy, refused, refusals, requests, last.round, diverged, time.perf_counter() - began)


def test_accuracy(experiment: Experiment, state: ModelState) -> float:
    """Return a model's accuracy on the test split, percent; 0 of one whose outputs are no numbers."""
    branch = live_branch(experiment)
    data = workspace.data_of(experiment, branch.seed)
    model = workspace.new_model(experiment, data, branch.training_seed)
    model.load(state.vector, state.buffers)
    outputs = collect(model.module, data, splits=("test",)).test
    assert outputs is not None
    try:
        return quality(outputs)
    except Unmeasurable:
        return 0.0


class _Clock:
    """Unix seconds that pass only when the server waits: a deadline is not a matter of how fast the machine is."""

    def __init__(self) -> None:
        self._now = 1e9

    def __call__(self) -> float:
        return self._now

    def pause(self, seconds: float) -> None:
        self._now += seconds
