"""A federation that trains in no time, and what the local engine makes of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fedunlearn import config
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.serve import serve
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.engines import open_grid

CLIENTS = 2
ROUNDS = 2
DIGITS = f"""
name = "digits"
targets = [[0]]
data = {{ source = "digits", partition = "dirichlet", alpha = 0.5, validation = 0.2 }}
federation = {{ num-clients = {CLIENTS}, round-timeout = 900.0 }}
model = {{ name = "mlp", hidden = [8] }}
train = {{ rounds = {ROUNDS}, batch-size = 32, lr = 0.1, lr-decay = 0.9 }}
method = [{{ name = "natural" }}]
recover.until = "max-rounds"
engine.device = "cpu"
"""
LIVE = (
    DIGITS.replace('name = "digits"', 'name = "digits-live"', 1)
    .replace("targets = [[0]]\n", "")
    .replace(f"num-clients = {CLIENTS}", "num-clients = 3")
    .replace("round-timeout = 900.0", "round-timeout = 900.0, quorum = 0.5")
    .replace('"natural"', '"puf"')
    .replace(
        'recover.until = "max-rounds"', 'recover = { until = "max-rounds", max-rounds = 1 }\nrequests = {}'
    )
)
"""A live federation of three clients, of whom one may be lost."""
TOLERANCE = 1e-6


def local_weights(path: Path, folder: Path) -> Tensor:
    """Return the weights that the original federation of an experiment's file ends in on the local engine."""
    experiment = config.load(path)
    branch = branches(experiment, experiment.seeds[0])[0]
    checkpoints = Checkpoints(folder, branch.name)
    with open_grid(experiment, str(path), branch.seed) as grid, Ledger(":memory:") as ledger:
        serve(grid, experiment, branch, ledger=ledger, checkpoints=checkpoints)
    return checkpoints.load(branch.last_round).vector


def is_complete(folder: Path) -> bool:
    """Whether a run directory's original federation has come to its last round."""
    return Checkpoints(folder / "checkpoints", "original-s1").path(ROUNDS).is_file()


def run_weights(folder: Path) -> Tensor:
    """Return the weights that a run directory's original federation has ended in."""
    return Checkpoints(folder / "checkpoints", "original-s1").load(ROUNDS).vector


def assert_equal_weights(found: Tensor, wanted: Tensor) -> None:
    """Compare two models; the tolerance is that of the promise, and they should be the same bits."""
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
