"""Our rows: a federation as a user runs it, one round at a time.

A round is one call of ``UnlearningStrategy.start`` that runs one round more, so that nothing a round costs is
outside the clock: plan and requests in the ledger (in memory), work cut into units and placed, training, checks
of every answer, sums, loss of every client. Evaluation and checkpoints are not in it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from benchmarks.cases import SEED, Case
from benchmarks.noop import Noop
from benchmarks.rows import UnavailableError
from fedunlearn import workspace
from fedunlearn.config import Experiment, TrainConfig
from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.server.settings import Settings
from fedunlearn.simulation.engines import open_grid
from fedunlearn.strategies.retrain import Retrain


class Federation:
    """A federation on one of our engines, a round at a time."""

    def __init__(
        self,
        grid: AbstractContextManager[Grid],
        settings: Settings,
        model: ModelState,
        threads: int = 1,
        note: str = "",
    ) -> None:
        self.threads = threads
        self.note = note
        self.model = model
        self._stack = ExitStack()
        self._grid = self._stack.enter_context(grid)
        self._scale = None
        if not isinstance(grid, LocalGrid):
            from benchmarks.parcels import Scale  # imports Ray

            self._scale = Scale()
            self._stack.callback(self._scale.close)
        self._strategy = Retrain(settings)

    def prepare(self, number: int, start: Tensor) -> None:
        """Start the round from these weights, with the buffers that the last one ended in."""
        self.model = ModelState(start, self.model.buffers)
        if self._scale:
            self._scale.bytes = 0
        self._number = number

    def run(self) -> None:
        """Run one round."""
        self._strategy.start(self._grid, pack(self.model), num_rounds=self._number)
        assert self._strategy.model is not None
        self.model = self._strategy.model

    def vector(self) -> Tensor:
        """Return the global weights, flat."""
        return self.model.vector

    @property
    def serialised(self) -> int | None:
        """Bytes of the last round that were serialised; in this process none."""
        return self._scale.bytes if self._scale else 0

    def close(self) -> None:
        """Stop the engine."""
        self._stack.close()


def engine_settings(row: str, case: Case, threads: int) -> tuple[dict[str, Any], str]:
    """Return the ``[engine]`` table and the numerics of one of our rows."""
    if row == "local":
        return {"workers": threads}, "exact"
    if row == "local-wide":
        return {"workers": 1, "threads-per-client": threads}, "exact"
    if row == "batched":
        return {"workers": threads, "batch-clients": case.batch_clients}, "fast"
    if row == "ray":
        return {"name": "ray", "workers": threads}, "exact"
    if row == "auto":
        return {"name": "auto", "workers": threads, "precision": "float32"}, "fast"
    raise ValueError(f"{row!r} is not a row of ours")


def federation(row: str, case: Case, folder: Path, threads: int) -> Federation:
    """Return a row of ours; its experiment file is written into the folder.

    Raises
    ------
    UnavailableError
    """
    if case.noop_floats:
        return _noop(row, case, threads)
    engine, numerics = engine_settings(row, case, threads)
    path = folder / f"{row}-{threads}.toml"
    path.write_text(case.toml(engine, numerics), encoding="utf-8")
    try:
        experiment = workspace.experiment_at(str(path))
        data = workspace.data_of(experiment, SEED)
        model = workspace.new_model(experiment, data, SEED)
        start = ModelState(model.vector, model.buffers())
        note = ""
        if row == "auto":
            from fedunlearn.simulation.choice import choose

            choice = choose(experiment)
            experiment, note = choice.experiment, choice.why
        if experiment.engine.batch_clients > 1:
            _try_stack(experiment, start.vector)
        grid = open_grid(experiment, str(path), SEED)
    except (ImportError, RunError, UserError, TypeError) as error:
        raise UnavailableError(_one_line(error)) from error
    settings = Settings(num_clients=case.num_clients, train=experiment.train, seed=SEED)
    return Federation(grid, settings, start, experiment.engine.threads_per_client, note)


def _noop(row: str, case: Case, threads: int) -> Federation:
    if row not in ("local", "ray"):
        raise UnavailableError("a no-op is not trained")
    options: dict[str, Any] = {"workers": threads, "routine": partial(Noop, case.noop_floats)}
    grid: AbstractContextManager[Grid]
    try:
        if row == "local":
            grid = LocalGrid(ClientApp(), case.num_clients, **options)
        else:
            from fedunlearn.federation.ray import RayGrid

            grid = RayGrid("fedunlearn.clients.app:app", case.num_clients, **options)
    except (ImportError, RunError, TypeError) as error:
        raise UnavailableError(_one_line(error)) from error
    settings = Settings(num_clients=case.num_clients, train=TrainConfig(rounds=1, lr=0.1), seed=SEED)
    return Federation(grid, settings, ModelState(torch.ones(case.noop_floats)))


def _try_stack(experiment: Experiment, start: Tensor) -> None:
    """Train a stack of one: an engine would go on one by one, without a word, where that fails."""
    from fedunlearn.clients.tasks import routine_of

    try:
        routine_of(experiment, SEED).train_stack([0], start, {"round": 1, "lr": 0.1, "seed": SEED})
    except Exception as error:
        raise UnavailableError(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
