"""A made-up but realistic finished run, written file by file as a simulation writes them.

Curves saturate as federated training does; the accuracy on forgotten data starts above the oracle's, drops
when negated and comes back in part. Nothing is trained: the report only reads.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedunlearn.evaluation.floors import floor_of, gaps
from fedunlearn.evaluation.rows import Cost, Forget, Row
from fedunlearn.evaluation.scorecard import dumps, scorecard
from tests.report.example_rows import (
    CAP,
    NATURAL,
    PUF,
    Json,
    Point,
    cost_of,
    mean_above,
    metrics_of,
    outcome_of,
    request_of,
)  # fmt: skip

ROUNDS, CLIENTS = 30, 10
HOLE = {PUF: 30.0, NATURAL: 1.2}  # points of test accuracy that the unlearning round costs
TOML = """name = "quickstart"
seeds = [1]
targets = [[0], [2], [7]]

[data]
source = "mnist5k"
partition = "dirichlet"
alpha = 0.3

[federation]
num-clients = 10

[model]
name = "small-cnn"

[train]
rounds = 30
lr = 0.1

[[method]]
name = "puf"
mode = "special"
scale = 2.0

[[method]]
name = "natural"

[recover]
max-rounds = 15
"""


def learned(round: int) -> float:
    """Test accuracy of ordinary training, %."""
    return 96.5 - 84 * math.exp(-round / 5.5)


def held(counts: np.ndarray, classes: Sequence[str]) -> Json:
    """Return partition.json's entry of clients that are all listed."""
    return {
        "classes": list(classes),
        "num_clients": len(counts),
        "clients": list(range(len(counts))),
        "counts": counts.tolist(),
        "sizes": spread(counts.sum(axis=1)),
        "classes_held": spread((counts > 0).sum(axis=1)),
    }


def spread(values: np.ndarray) -> Json:
    """Return how a number is spread over clients."""
    return {
        "least": int(values.min()),
        "median": float(np.median(values)),
        "most": int(values.max()),
        "total": int(values.sum()),
    }


@dataclass
class ExampleRun:
    """One run: a branch per (seed, target, method), or with ``timeline`` one federation per method.

    ``write`` puts its files into a directory; change ``rows``, ``branches`` or ``lines`` first for odd cases.
    """

    METRIC = "accuracy"
    measures = staticmethod(metrics_of)

    name: str = "quickstart"
    seeds: tuple[int, ...] = (1,)
    targets: tuple[tuple[int, ...], ...] = ((0,), (2,), (7,))
    timeline: tuple[int, ...] = ()
    """With it, target i is requested after round ``timeline[i]`` of one federation."""
    forgotten_share: float = 0.9
    toml: str = TOML
    lines: list[Json] = field(default_factory=list)
    branches: list[Json] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.counts: dict[str, Json] = {}
        for seed in self.seeds:
            shares = self.rng.dirichlet([0.4] * CLIENTS, 10).T
            self.counts[str(seed)] = held((shares * 360).astype(int), [str(c) for c in range(10)])
            self._original(seed)
            if self.timeline:
                self._timeline(seed)
            else:
                for place, clients in enumerate(self.targets):
                    self._target(seed, place, clients)

    def write(self, directory: Path) -> Path:
        """Write every file of the run and return the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "scorecard.json").write_text(dumps(self.card(directory.name)))
        (directory / "branches.json").write_text(json.dumps(self.branches))
        (directory / "partition.json").write_text(json.dumps(self.counts))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        (directory / "experiment.toml").write_text(self.toml)
        return directory

    def card(self, run: str) -> Json:
        """Return the scorecard."""
        return scorecard(self.name, run, self.rows)

    # -- trajectories -------------------------------------------------------------------------------------

    def _noise(self, size: float) -> float:
        return float(self.rng.normal(0, size))

    def _log(self, branch: str, round: int, **accuracies: float) -> Point:
        point = {split: min(100.0, max(0.0, value)) for split, value in accuracies.items()}
        line = {"branch": branch, "round": round, "entity": "server", "metric": self.METRIC, "seconds": 0.8}
        self.lines += [{**line, "split": split, "value": value} for split, value in point.items()]
        return point

    def _original(self, seed: int) -> None:
        self._describe(f"original-s{seed}", "original", "original", seed, None, (), 0, ROUNDS)
        for round in range(1, ROUNDS + 1):
            self._log(f"original-s{seed}", round, test=learned(round) + self._noise(0.3))

    def _oracle(
        self, kind: str, seed: int, place: int, clients: Sequence[int], at_round: int
    ) -> dict[int, Point]:
        """Log an oracle's trajectory, its forget accuracy only from the request on, and return all of it."""
        last, above = max(ROUNDS, at_round) + CAP, mean_above(clients)
        name = f"{kind}-{place}-s{seed}"
        self._describe(name, kind, kind, seed, place, clients, 0, last)
        points = {}
        for round in range(1, last + 1):
            test = learned(round) - 0.6 + self._noise(0.25)
            forget = {"forget": learned(round) - above + self._noise(1.3)}
            points[round] = {"test": test, **forget}
            self._log(name, round, test=test, **(forget if round >= at_round else {}))
        return points

    def _method(
        self, name: str, label: str, oracle: dict[int, Point], above: float, asked: Sequence[int], last: int
    ) -> dict[int, Point]:
        """Log a method's trajectory: at each request accuracy falls into a hole, and climbs out of it."""
        points = {}
        for round in range(min(asked) + 1, last + 1):
            hole = sum(HOLE[label] * math.exp(-0.9 * (round - t - 1)) for t in asked if round > t) + 0.3
            step = round - max(t for t in asked if round > t)
            if label == PUF:
                left = above * (1 - self.forgotten_share) - hole
            else:
                left = above * (0.45 + 0.5 * math.exp(-0.5 * step))
            forget = oracle[round]["forget"] + left + self._noise(0.8)
            test = learned(round) - hole + self._noise(0.2)
            points[round] = self._log(name, round, forget=forget, test=test)
        return points

    # -- branches and rows --------------------------------------------------------------------------------

    def _target(self, seed: int, place: int, clients: tuple[int, ...]) -> None:
        oracle = self._oracle("retrain", seed, place, clients, ROUNDS)
        second = self._oracle("floor", seed, place, clients, ROUNDS)
        start = {"forget": learned(ROUNDS) + 1.5 + self._noise(0.3), "test": learned(ROUNDS)}
        compare = ROUNDS + 4 + place % 2
        row = Row(
            method="original", label="original", seed=seed, request=f"target-{place}", target=place,
            forget=Forget(clients), at="request", round=ROUNDS, metrics={}, gap={}, floor={},
            cost=Cost(ROUNDS * CLIENTS, 0, 0, 24.0), reason="fewer than 20 retained samples: no MIA-SVC",
        )  # fmt: skip
        self._measure(row, start, oracle, second)
        for at, round in (("request", ROUNDS), ("compare", compare), ("cap", ROUNDS + CAP)):
            retrain = replace(row, method="retrain", label="retrain", at=at, round=round)
            epochs = round * (CLIENTS - len(clients))
            self._measure(replace(retrain, cost=cost_of(epochs)), oracle[round], oracle, second)
        for label, recovered in ((PUF, compare), (NATURAL, None if place == 1 else ROUNDS + 1)):
            name = f"{label}-{place}-s{seed}"
            points = self._method(name, label, oracle, mean_above(clients), [ROUNDS], ROUNDS + CAP)
            request = request_of(f"target-{place}", clients, ROUNDS, recovered, "capped")
            self._describe(name, "method", label, seed, place, clients, ROUNDS, ROUNDS + CAP, [request])
            moments = {
                "unlearned": ROUNDS + 1,
                "recovered": recovered,
                "compare": compare,
                "cap": ROUNDS + CAP,
            }
            for at, round in moments.items():
                if round is not None:
                    outcome = outcome_of(label, at, round, clients, recovered and recovered - ROUNDS)
                    epochs = (round - ROUNDS) * (CLIENTS - len(clients))
                    mine = replace(row, cost=cost_of(epochs, cached=label == NATURAL), **outcome)
                    self._measure(mine, points[round], oracle, second)

    def _timeline(self, seed: int) -> None:
        gone: tuple[int, ...] = ()
        oracles = []
        for place, (clients, at_round) in enumerate(zip(self.targets, self.timeline, strict=True)):
            gone = tuple(sorted({*gone, *clients}))
            oracles.append([self._oracle(kind, seed, place, gone, at_round) for kind in ("retrain", "floor")])
        last = self.timeline[-1] + CAP
        oracle, second = oracles[-1]
        for label in (PUF, NATURAL):
            name = f"{label}-timeline-s{seed}"
            points = self._method(name, label, oracle, mean_above(gone), self.timeline, last)
            requests = []
            for place, (clients, at_round) in enumerate(zip(self.targets, self.timeline, strict=True)):
                recovered = None if place == 0 else at_round + 4
                request = request_of(f"request-{place + 1}", clients, at_round, recovered, "superseded")
                requests.append(request)
                row = Row(
                    method="original", label="original", seed=seed, request=request["id"], target=place,
                    forget=Forget(clients), at="request", round=at_round, metrics={}, gap={}, floor={},
                    cost=cost_of(at_round * CLIENTS),
                )  # fmt: skip
                own, other = oracles[place]
                if label == PUF:
                    level = {"forget": learned(at_round) + 1.0, "test": learned(at_round)}
                    self._measure(row, level, own, other)
                for at in ("unlearned", "recovered"):
                    round = at_round + 1 if at == "unlearned" else recovered
                    if round is not None:
                        outcome = outcome_of(label, at, round, clients, recovered and 4)
                        outcome["recovered"] = True if recovered else None
                        self._measure(replace(row, **outcome), points[round], own, other)
            outcome = outcome_of(label, "final", last, gone, None)
            final = replace(row, **(outcome | {"recovered": None}), request=None, forget=Forget(gone))
            self._measure(final, points[last], oracle, second)
            self._describe(name, "method", label, seed, None, gone, self.timeline[0], last, requests)

    def _measure(self, row: Row, point: Point, oracle: dict[int, Point], second: dict[int, Point]) -> None:
        """Add the row with its metrics, gaps and floors filled in."""
        reference = self.measures(oracle[row.round])
        mine = reference if row.label == "retrain" else self.measures(point)
        noise = floor_of(reference, [self.measures(second[row.round])])
        floors = {"floor": noise.median, "floors": noise.distances}
        self.rows.append(replace(row, metrics=mine, gap=gaps(mine, reference), **floors))

    def _describe(
        self, name: str, kind: str, label: str, seed: int, target: int | None, forget: Sequence[int],
        first: int, last: int, requests: Sequence[Json] = (),
    ) -> None:  # fmt: skip
        place = {"branch": name, "kind": kind, "label": label, "seed": seed, "target": target}
        asked = {"forget": list(forget), "requests": list(requests)}
        self.branches.append({**place, **asked, "first_round": first, "last_round": last})
