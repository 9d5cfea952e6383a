"""``metrics.jsonl`` → arrays over rounds.

One line is ``{"branch","round","entity","split","metric","value","seconds"}``. The file is append-only and a
resumed run repeats rounds, so the later of two lines about the same thing wins. The process may have been
killed while writing: a line that holds no metric is skipped and counted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedunlearn.runs.metrics_log import metric_in

Key = tuple[str, str, str, str]  # branch, entity, split, metric


@dataclass(frozen=True)
class Series:
    """Values over rounds: ``rounds`` (m,) int64, ascending, and ``values`` (m,) float64."""

    rounds: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rounds)

    def at(self, round: int) -> float | None:
        """Return the value of one round, None where it was not measured."""
        place = int(np.searchsorted(self.rounds, round))
        return float(self.values[place]) if place < len(self) and self.rounds[place] == round else None

    def between(self, first: int, last: int) -> "Series":
        """Return the part with first ≤ round ≤ last."""
        inside = (self.rounds >= first) & (self.rounds <= last)
        return Series(self.rounds[inside], self.values[inside])

    def followed_by(self, later: "Series") -> "Series":
        """Return both as one; where they share a round, ``later`` wins."""
        return series_of({**self.as_dict(), **later.as_dict()})

    def as_dict(self) -> dict[int, float]:
        """Return round → value."""
        return {int(round): float(value) for round, value in zip(self.rounds, self.values, strict=True)}


def series_of(points: dict[int, float]) -> Series:
    """Return the series through these (round → value) points."""
    rounds = sorted(points)
    return Series(np.array(rounds, np.int64), np.array([points[round] for round in rounds], np.float64))


class Metrics:
    """Every measurement of a run over rounds."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._points: dict[Key, dict[int, float]] = {}
        self.skipped = 0
        for line in filter(bytes.strip, lines):
            metric = metric_in(line)
            if metric is None:
                self.skipped += 1
            elif math.isfinite(metric.value) and (metric.split != "train" or metric.entity == "server"):
                # Left out is a client's own training loss: as many as were sampled, and no chart shows them.
                key = (metric.branch, metric.entity, metric.split, metric.metric)
                self._points.setdefault(key, {})[metric.round] = metric.value

    def series(self, branch: str, split: str, metric: str = "accuracy", entity: str = "server") -> Series:
        """Return one measurement over rounds; empty where there is none."""
        return series_of(self._points.get((branch, entity, split, metric), {}))

    def over_clients(
        self,
        branch: str,
        split: str,
        clients: Sequence[int],
        weights: Sequence[float],
        metric: str = "accuracy",
    ) -> Series:
        """Return the weighted mean over ``client-k`` entities, in rounds where all were measured."""
        each = [self.series(branch, split, metric, f"client-{client}").as_dict() for client in clients]
        if not each or sum(weights) <= 0:
            return series_of({})
        rounds = set.intersection(*(set(points) for points in each))
        return series_of(
            {
                round: sum(weight * points[round] for weight, points in zip(weights, each, strict=True))
                / sum(weights)
                for round in rounds
            }
        )


def read_metrics(path: Path) -> Metrics:
    """Return the measurements of ``metrics.jsonl``; none when the file is absent."""
    if not path.exists():
        return Metrics([])
    with path.open("rb") as lines:
        return Metrics(lines)
