"""What the framework costs: seconds of one federated round over those of a bare PyTorch loop.

    python benchmarks/overhead.py                    # both cases
    python benchmarks/overhead.py --case mlp --storage both --json overhead.json

Framework: ``UnlearningStrategy.start`` → ``LocalGrid`` with one worker → ``clients.app`` → aggregation, as in a
user's run but for evaluation: plan and requests in the ledger (in memory or, as ``disk``, in SQLite with a
checkpoint per round), messages, checks of every answer, loss of every client.

Bare loop: what one writes for this one purpose. A resident ``nn.Module`` and ``torch.optim.SGD``, per-tensor copies
of the global weights, the same tensors, batches in the same order, FedAvg by per-tensor sums. It reports no
losses and checks nothing. Seeds of the shuffles are computed beforehand, outside the clock.

Both run in one process, one thread, in turns: A B, B A, A B, … The strategy is not called round by round but
runs its own loop once, and hands over to the bare loop where it would tell its observer of a finished round; the
clock of the framework runs from one such moment to the next, so nothing that a round costs is outside. Warm-up
rounds are not counted. The garbage collector stays on and is never called: what it takes from a round counts
for that round.

Both start each round from the same weights and must end it in the same weights, or no ratio is reported. (Left to
themselves they drift apart: their averages differ in the last bit, and two rounds of resnet18 multiply that by
a thousand.)

Reported: medians of seconds, the median of the ratios of the pairs, and its 95 % percentile bootstrap interval.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import flwr
import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from clients.app import app as client_app
from fedunlearn import models, resident
from fedunlearn.config import Experiment, TrainConfig
from fedunlearn.data import FederatedData
from fedunlearn.errors import RunError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.randomness import derive_seed, numpy_generator
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.simulation.branches import Branch
from fedunlearn.training import learning_rate
from strategies.base import RoundReport, UnlearningStrategy
from strategies.server_app import make_strategy

Storage = Literal["memory", "disk"]

SEED = 1
TOLERANCE = 1e-5
"""Largest difference between two weights that still counts as the same model."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Case:
    """A model and a federation to train it in: one local epoch in batches of 32, every client in every round.

    Attributes
    ----------
    goal : float or None
        Ratio not to exceed with the state in memory; how long a disk takes is not the framework's.
    pairs, warm_up : int
        Rounds of each side that are counted, and that go before.
    """

    name: str
    model: str
    num_clients: int
    images_per_client: int
    image_size: int
    channels: int
    goal: float | None
    pairs: int
    warm_up: int

    def toml(self) -> str:
        """Return the case as an experiment file."""
        return f"""
name = "overhead"
targets = [[0]]
data.source = "synthetic-images"
data.validation = 0.0
data.image-size = {self.image_size}
data.channels = {self.channels}
data.num-train = {self.num_clients * self.images_per_client}
federation.num-clients = {self.num_clients}
model.name = "{self.model}"
train = {{ rounds = 1, batch-size = 32, lr = 0.05, lr-decay = 0.998, weight-decay = 1e-3 }}
method = [{{ name = "natural" }}]
recover.until = "max-rounds"
engine.device = "cpu"
"""


CASES = {
    case.name: case
    for case in (
        Case("mlp", "mlp", 100, 32, 8, 1, goal=1.5, pairs=200, warm_up=10),
        Case("resnet18", "resnet18", 10, 64, 32, 3, goal=1.1, pairs=6, warm_up=1),
    )
}
"""mlp: 64-64-10, bound by overhead. resnet18: bound by arithmetic."""


class BareLoop:
    """Federated averaging without a framework: one model, a loop over clients, per-tensor arithmetic."""

    def __init__(self, experiment: Experiment, data: FederatedData, rounds: int) -> None:
        self.settings: TrainConfig = experiment.train
        self.clients = [data.client(k) for k in range(experiment.federation.num_clients)]
        self.module = models.build(
            experiment.model,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            image_size=data.image_size,
            seed=SEED,
        ).train()
        self.parameters = list(self.module.parameters())
        self.weights = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        self.generator = torch.Generator()
        self.seeds = [
            [derive_seed(SEED, "batches", t + 1, k) for k in range(len(self.clients))] for t in range(rounds)
        ]

    def round(self, number: int) -> None:
        """Train every client from the global weights and average what they end in, by number of examples."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.settings, number)
        sums = [torch.zeros_like(w) for w in self.weights]
        num_examples = 0
        for (images, labels), seed in zip(self.clients, self.seeds[number - 1], strict=True):
            with torch.no_grad():
                for p, w in zip(self.parameters, self.weights, strict=True):
                    p.copy_(w)
            order = torch.randperm(len(labels), generator=self.generator.manual_seed(seed))
            for start in range(0, len(labels), self.settings.batch_size):
                batch = order[start : start + self.settings.batch_size]
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.module(images[batch]), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
            with torch.no_grad():
                for total, p in zip(sums, self.parameters, strict=True):
                    total.add_(p, alpha=len(labels))
            num_examples += len(labels)
        self.weights = [total.div_(num_examples) for total in sums]

    def load(self, vector: Tensor) -> None:
        """Start the next round from these weights, given flat."""
        pieces = torch.split(vector, [w.numel() for w in self.weights])
        self.weights = [piece.view_as(w).clone() for piece, w in zip(pieces, self.weights, strict=True)]

    def vector(self) -> Tensor:
        """Return the global weights, flat."""
        return torch.cat([w.reshape(-1) for w in self.weights])


class Alternation:
    """An observer of the strategy's rounds that times them and runs the bare loop's in between.

    After the framework's round 1 come two bare rounds, then two of the framework, and so on: in every other
    pair the bare loop goes first. Different weights after the same round raise a RunError.
    """

    def __init__(self, strategy: UnlearningStrategy, loop: BareLoop, rounds: int) -> None:
        self.framework: list[float] = []  # seconds per round
        self.bare: list[float] = []
        self.difference = 0.0  # largest between two weights after the same round
        self._strategy = strategy
        self._loop = loop
        self._rounds = rounds
        self._began = time.perf_counter()

    def __call__(self, report: RoundReport) -> None:
        self.framework.append(time.perf_counter() - self._began)
        if report.round % 2 == 1:
            self._bare_round(report.round)
            self._agree(report.round)
            if report.round < self._rounds:
                self._bare_round(report.round + 1)
        else:
            self._agree(report.round)
        self._began = time.perf_counter()

    def _bare_round(self, number: int) -> None:
        began = time.perf_counter()
        self._loop.round(number)
        self.bare.append(time.perf_counter() - began)

    def _agree(self, number: int) -> None:
        """Compare the weights after a round, and let the bare loop go on from the framework's."""
        assert self._strategy.model is not None
        vector = self._strategy.model.vector
        difference = (vector - self._loop.vector()).abs().max().item()
        if not difference <= TOLERANCE:
            raise RunError(
                f"the weights of framework and bare loop differ by {difference:.1e} after round {number}, allowed "
                f"is {TOLERANCE:g}: they do not do the same work, and no ratio is reported"
            )
        self.difference = max(self.difference, difference)
        self._loop.load(vector)


@dataclass(frozen=True)
class Measurement:
    """The seconds of every counted pair of rounds."""

    case: Case
    storage: Storage
    framework: Sequence[float]
    bare: Sequence[float]
    difference: float
    """Largest between two weights after the same round."""

    @property
    def ratio(self) -> float:
        """Median of framework over bare, pair by pair."""
        return statistics.median(self._ratios)

    @property
    def goal(self) -> float | None:
        """Ratio not to exceed, if there is one."""
        return self.case.goal if self.storage == "memory" else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the median ratio."""
        ratios = np.array(self._ratios)
        draws = numpy_generator(0, "bootstrap").integers(0, len(ratios), size=(RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
        return float(low), float(high)

    @property
    def _ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.framework, self.bare, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything measured, as JSON types."""
        return {
            "case": asdict(self.case),
            "storage": self.storage,
            "pairs": len(self.bare),
            "ratio": self.ratio,
            "interval": self.interval,
            "difference": self.difference,
            "seconds": {"framework": list(self.framework), "bare": list(self.bare)},
        }


def measure(case: Case, storage: Storage = "memory") -> Measurement:
    """Run a case; a RunError says that the two ended a round in different weights."""
    rounds = case.warm_up + case.pairs
    branch = Branch(
        name="overhead", kind="original", label="original", seed=SEED, training_seed=SEED, last_round=rounds
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedunlearn-overhead-")))
        path = folder / "experiment.toml"
        path.write_text(case.toml())
        experiment = resident.experiment_at(str(path))
        grid = stack.enter_context(
            LocalGrid(
                client_app, case.num_clients, run_config={"experiment": str(path), "seed": SEED}, workers=1
            )
        )
        data = resident.data_of(experiment, SEED)
        ledger = stack.enter_context(Ledger(folder / "requests.sqlite" if storage == "disk" else ":memory:"))
        checkpoints = None
        if storage == "disk":
            checkpoints = Checkpoints(folder / "checkpoints", branch.name, keep=lambda _: False)
        strategy = make_strategy(experiment, branch, ledger=ledger, checkpoints=checkpoints)
        turns = Alternation(strategy, BareLoop(experiment, data, rounds), rounds)
        strategy.observe = turns
        start = ModelState(resident.new_model(experiment, data, SEED).vector)
        strategy.start(grid, pack(start), num_rounds=rounds)
    counted = slice(case.warm_up, None)
    return Measurement(case, storage, turns.framework[counted], turns.bare[counted], turns.difference)


def machine() -> dict[str, Any]:
    """Return what the seconds depend on beside the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": flwr.__version__,
        "threads": torch.get_num_threads(),
    }


HEADINGS = ("case", "state", "framework", "bare", "ratio", "95 %", "goal", "n")


def cells(m: Measurement) -> tuple[str, ...]:
    """Return what stands under :data:`HEADINGS`."""
    low, high = m.interval
    return (
        f"{m.case.name} {m.case.num_clients}×{m.case.images_per_client}",
        m.storage,
        f"{statistics.median(m.framework):.4g}",
        f"{statistics.median(m.bare):.4g}",
        f"{m.ratio:.3f}",
        f"{low:.3f}–{high:.3f}",
        "" if m.goal is None else f"≤ {m.goal:g}",
        str(len(m.bare)),
    )


def table(measurements: Iterable[Measurement]) -> Table:
    """Return the measurements for a terminal; a ratio beyond its goal is red."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, heading in enumerate(HEADINGS):
        grid.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    for m in measurements:
        missed = m.goal is not None and m.ratio > m.goal
        grid.add_row(*cells(m), style="red" if missed else None)
    return grid


def markdown(measurements: Iterable[Measurement]) -> str:
    """Return the measurements as a Markdown table with the machine under it."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(cells, measurements)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{_footnote()}\n"


def _footnote() -> str:
    m = machine()
    return (
        "Case: model, clients × images of each. Seconds per steady round, medians of n interleaved pairs; ratio "
        f"pair by pair with 95 % bootstrap interval. {m['processor']}, {m['cores']} cores, {m['threads']} thread; "
        f"Python {m['python']}, torch {m['torch']}, flwr {m['flwr']}. By `python benchmarks/overhead.py`."
    )


def main(
    case: Annotated[
        list[str] | None, typer.Option(help=f"{' or '.join(CASES)}; repeatable. Default: all.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs of rounds to count. Default: the case's.")
    ] = None,
    storage: Annotated[
        Literal["memory", "disk", "both"],
        typer.Option(help="Ledger in memory, or SQLite and checkpoints on disk."),
    ] = "memory",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every measurement there.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table there.")] = None,
) -> None:
    """Compare the seconds of a federated round with those of a bare PyTorch loop."""
    names = case or list(CASES)
    if unknown := set(names) - set(CASES):
        raise typer.BadParameter(f"{min(unknown)!r}: must be one of {', '.join(CASES)}", param_hint="--case")
    places: tuple[Storage, ...] = ("memory", "disk") if storage == "both" else (storage,)
    console = Console()
    measurements = []
    try:
        for name in names:
            chosen = CASES[name] if pairs is None else replace(CASES[name], pairs=pairs)
            for place in places:
                with console.status(f"{name}, {place}: {chosen.warm_up} + {chosen.pairs} rounds of each"):
                    measurements.append(measure(chosen, place))
    except RunError as error:
        console.print(f"failed: {name}: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(table(measurements))
    console.print(_footnote(), highlight=False)
    if json_file is not None:
        found = {"machine": machine(), "measurements": [m.to_dict() for m in measurements]}
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    if markdown_file is not None:
        markdown_file.write_text(markdown(measurements))


if __name__ == "__main__":
    typer.run(main)
