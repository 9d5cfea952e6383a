"""metrics.jsonl: one line per number, append-only, and readable after any crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

Address = tuple[str, int, str, str, str]


@dataclass(frozen=True)
class Metric:
    """One number of one round.

    Attributes
    ----------
    branch, round
        Which federation, after which round; round 0 is the initial model.
    entity
        ``server`` for the global model, ``client-3`` for what one client reported.
    split
        ``test``, ``validation``, ``forget``, ``retain`` or ``train``.
    metric
        ``accuracy`` (percent), ``loss`` (nats), ``coefficient`` (the factor on a forgotten client's update).
    value
    seconds
        Duration of the whole round, evaluation included.
    """

    branch: str
    round: int
    entity: str
    split: str
    metric: str
    value: float
    seconds: float

    @property
    def address(self) -> Address:
        """What it is a number of; the latest line at an address counts."""
        return (self.branch, self.round, self.entity, self.split, self.metric)


class MetricsLog:
    """Appends metrics durably, and reads them back.

    A line torn by a crash is cut off when the log is opened. A round that is executed again appends its
    numbers again: of several lines at one address the last counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def append(self, metrics: Iterable[Metric]) -> None:
        """Write the lines and wait until they are on the disk."""
        lines = "".join(json.dumps(asdict(m)) + "\n" for m in metrics)
        if lines:
            with self._path.open("a") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())

    def of(self, branch: str) -> dict[Address, Metric]:
        """Return a branch's metrics by address."""
        return {m.address: m for m in read_metrics(self._path) if m.branch == branch}


def read_metrics(path: Path) -> Iterator[Metric]:
    """Yield the metrics in a log, in order, without those whose line is torn."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield Metric(**json.loads(line))
