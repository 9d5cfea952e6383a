"""Choosing engine, workers, stack and precision by trying them for a moment: ``engine.name = "auto"``.

Nothing that is chosen under ``numerics = "exact"`` changes a bit. Under ``numerics = "fast"``, stack and precision
do: they are chosen once per run and kept when it is resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from fedunlearn import workspace
from fedunlearn.config import Experiment, with_engine
from fedunlearn.randomness import torch_generator
from fedunlearn.training import train_local, train_stack, why_not_stackable

STACKS = (8, 32, 128)
"""Numbers of clients in a stack that are tried."""
BATCHES = 2
"""Batches of a client that a trial trains on, at most."""
LONG_STEP = 0.05
"""Seconds of a step from which on, on a processor, stacking has nothing left to save and is not tried."""
GAIN = 0.95
"""A trial must take less than this share of the simpler way's time to be preferred."""
RAY_START = 10.0
"""Seconds that Ray and its workers take to start, roughly; an experiment must be long enough to earn them."""


@dataclass(frozen=True)
class Choice:
    """An experiment with nothing left to choose about its engine, and why it was chosen so, in one line."""

    experiment: Experiment
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """One way to train clients, and how long it took.

    Attributes
    ----------
    seconds : float
        Per training example, all workers together.
    """

    workers: int
    stack: int
    precision: str
    seconds: float = 0.0

    def __str__(self) -> str:
        how = "one by one" if self.stack == 1 else f"{self.stack} in a stack"
        side = "" if self.workers == 1 else f", {self.workers} workers"
        return f"{how}{side}{', bfloat16' if self.precision == 'bfloat16' else ''}"


def choose(
    asked: Experiment,
    *,
    before: Experiment | None = None,
    examples: Callable[[], int] | None = None,
    seconds: float = 0.25,
) -> Choice:
    """Return the experiment with its engine chosen; one that is not ``auto`` is returned as it is.

    Parameters
    ----------
    before
        What was chosen when this run was begun: stack and precision stay what they were.
    examples
        Counts the training examples that the whole experiment will see, to weigh Ray's start against.
    seconds
        How long to try each way.
    """
    if asked.engine.name != "auto":
        return Choice(asked)
    experiment = asked
    if before is not None and before.engine.name != "auto":
        experiment = with_engine(
            asked, batch_clients=before.engine.batch_clients, precision=before.engine.precision
        )
    trials = _Trials(experiment, seconds)
    best = trials.best()
    gpus = torch.cuda.device_count() if trials.device.type == "cuda" else 0
    name, workers = "local", best.workers
    reason = trials.reason(best)
    if gpus > 1:
        name, workers, reason = "ray", gpus, f"one worker on each of {gpus} GPUs; {reason}"
    elif why := trials.why_ray(best, examples):
        name, workers, reason = "ray", trials.most_workers, why
    workers = workers if asked.engine.given_workers is None else asked.engine.workers
    chosen = with_engine(
        experiment,
        name=name,  # type: ignore[arg-type]
        workers=workers,
        batch_clients=best.stack,
        precision=best.precision,  # type: ignore[arg-type]
    )
    return Choice(chosen, f"engine {name}, {Trial(workers, best.stack, best.precision)}: {reason}")


class _Trials:
    """Tries ways to train on the first clients' first batches."""

    def __init__(self, experiment: Experiment, seconds: float) -> None:
        torch.set_num_threads(experiment.engine.threads_per_client)
        self._experiment = experiment
        self._seconds = seconds
        self._data = workspace.data_of(experiment, experiment.seeds[0])
        self.device = workspace.device_of(experiment)
        self._slots = experiment.federation.slots
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        fit = max(1, min(cores // experiment.engine.threads_per_client, self._slots))
        given = experiment.engine.given_workers
        self.most_workers = given or (fit if self.device.type == "cpu" else 1)
        self._rows = experiment.train.batch_size * BATCHES
        self._precisions = self._open_precisions()
        few = given or 1
        stack = experiment.engine.batch_clients  # 1 where it is still to be chosen
        self.simplest = self._try(few, stack, self._precisions[0])
        self.found = [self.simplest]
        for size in (stack, *self._other_stacks()):
            for precision in self._precisions:
                for workers in sorted({few, self.most_workers}):
                    if (workers, size, precision) != (few, stack, self._precisions[0]):
                        self.found.append(self._try(workers, size, precision))

    def best(self) -> Trial:
        """Return the fastest way; a simpler one where the gain is within the noise."""
        best = self.found[0]
        for trial in self.found[1:]:
            if trial.seconds < GAIN * best.seconds:
                best = trial
        return best

    def reason(self, best: Trial) -> str:
        """Say what made the choice."""
        if len(self.found) == 1:
            return "nothing else to choose from here"
        if best is self.simplest:
            other = min((t for t in self.found if t is not best), key=lambda t: t.seconds)
            return f"{_rate(best)}; {other} takes {other.seconds / best.seconds:.2f} times as long"
        alike = (best.stack, best.precision) == (self.simplest.stack, self.simplest.precision)
        simplest = f"with {self.simplest.workers} worker(s)" if alike else str(self.simplest)
        return f"{_rate(best)}, {self.simplest.seconds / best.seconds:.2f} times as many as {simplest}"

    def why_ray(self, best: Trial, examples: Callable[[], int] | None) -> str:
        """Say why worker processes are worth their start, or return an empty string."""
        if (
            self.device.type != "cpu"
            or self.most_workers == 1
            or examples is None
            or find_spec("ray") is None
        ):
            return ""
        alone = min((t for t in self.found if t.workers == 1), key=lambda t: t.seconds, default=None)
        if alone is None or alone.stack != best.stack:
            return ""
        total = examples()
        here = total * best.seconds
        there = total * alone.seconds / self.most_workers + RAY_START
        if there > GAIN * here:
            return ""
        return f"{self.most_workers} processes will take about {there:.0f} s, threads {here:.0f} s"

    def _open_precisions(self) -> Sequence[str]:
        engine = self._experiment.engine
        if engine.given_precision is None and self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return ("float32", "bfloat16")
        return (engine.precision,)

    def _other_stacks(self) -> Sequence[int]:
        """Return the sizes of stacks to try beside one by one."""
        experiment = self._experiment
        if experiment.engine.given_batch_clients is not None:
            return ()
        module = workspace.new_model(experiment, self._data, seed=0).module
        if why_not_stackable(module, recipe=workspace.recipe_of(experiment, self._data)):
            return ()
        step = self.simplest.seconds * experiment.train.batch_size
        if self.device.type == "cpu" and step > LONG_STEP:
            return ()
        return sorted({min(stack, self._slots) for stack in STACKS} - {1})

    def _try(self, workers: int, stack: int, precision: str) -> Trial:
        way = self._one_by_one if stack == 1 else self._stacked
        experiment = with_engine(self._experiment, precision=precision)  # type: ignore[arg-type]
        seconds = self._time(lambda clients: way(experiment, clients), stack, workers)
        return Trial(workers, stack, precision, seconds)

    def _one_by_one(self, experiment: Experiment, clients: Sequence[int]) -> None:
        model = workspace.model_of(experiment, self._data)
        for client in clients:
            train_local(
                model,
                *self._client(client),
                experiment.train,
                lr=experiment.train.lr,
                generator=torch_generator(0, "probe", 0, client),
                recipe=workspace.recipe_of(experiment, self._data),
            )

    def _stacked(self, experiment: Experiment, clients: Sequence[int]) -> None:
        model = workspace.model_of(experiment, self._data)
        rows = [self._client(client) for client in clients]
        train_stack(
            model,
            model.vector,
            [images for images, _ in rows],
            [labels for _, labels in rows],
            experiment.train,
            lr=experiment.train.lr,
            generators=[torch_generator(0, "probe", 0, client) for client in clients],
            recipe=workspace.recipe_of(experiment, self._data),
        )

    def _client(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self._data.client(number % self._slots)
        return images[: self._rows], labels[: self._rows]

    def _time(self, train: Callable[[Sequence[int]], None], at_once: int, workers: int) -> float:
        """Return the least seconds per example of ``train`` on ``at_once`` clients by each worker side by side."""
        shares = [range(w * at_once, (w + 1) * at_once) for w in range(workers)]
        rows = sum(len(self._client(client)[1]) for share in shares for client in share)
        with ThreadPoolExecutor(workers) as pool:

            def side_by_side() -> float:
                began = time.perf_counter()
                list(pool.map(train, shares))
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                return time.perf_counter() - began

            side_by_side()  # first calls allocate, build models and choose kernels
            taken = [side_by_side()]
            while sum(taken) < self._seconds:
                taken.append(side_by_side())
        return min(taken) / (rows * self._experiment.train.local_epochs)


def _rate(trial: Trial) -> str:
    """Say how quick a trial was."""
    return f"{1 / trial.seconds:,.0f} examples/s".replace(",", " ")
