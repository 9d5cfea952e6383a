"""metrics.jsonl: one line per number, append-only, and readable after any crash."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fedunlearn.errors import naming

Address = tuple[str, int, str, str, str]

BOM = codecs.BOM_UTF8
"""What an editor may have put in front of the file."""

_BRANCH_FIRST = re.compile(rb'\{"branch": "([^"\\]*)"')


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
        ``accuracy`` or, of masks, ``dice`` (percent), ``loss`` (nats), ``coefficient`` (the factor on a forgotten
        client's update).
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

    A line torn by a crash is cut off when the log is opened; any other that holds no metric is passed over, here as
    in the report, so that it costs no more than itself. A round that is executed again after a crash appends what
    came out otherwise: of several lines at one address the last counts.

    Attributes
    ----------
    garbled : int
        Lines that held no metric when the log was opened, as far as that is seen without parsing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spans: dict[str, list[list[int]]] = {}
        self._scanned = 0
        self._begun: set[str] = set()  # branches that this object has appended to
        path.touch()
        with path.open("rb+") as file:
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            file.truncate(len(whole))
        lines = whole.removeprefix(BOM).splitlines()
        self.garbled = sum(not (line.startswith(b'{"branch": "') and line.endswith(b"}")) for line in lines)

    def append(self, metrics: Iterable[Metric]) -> None:
        """Write the lines and wait until they are on the disk; none that stands there from before a crash."""
        lines = "".join(json.dumps(asdict(m)) + "\n" for m in self._new(metrics))
        if lines:
            with naming(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())

    def _new(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Leave out what an earlier process appended: only the first round after a resumption can be such."""
        metrics = list(metrics)
        known: dict[Address, Metric] = {}
        for branch in {m.branch for m in metrics} - self._begun:
            known |= self.of(branch)
            self._begun.add(branch)
        return [m for m in metrics if m.address not in known or known[m.address].value != m.value]

    def of(self, branch: str) -> dict[Address, Metric]:
        """Return a branch's metrics by address.

        Only the branch's own part of the file is parsed: a run of a thousand branches asks a thousand times.
        """
        self._scan()
        found: dict[Address, Metric] = {}
        with self._path.open("rb") as file:
            for first, end in self._spans.get(branch, ()):
                file.seek(first)
                for line in file.read(end - first).splitlines():
                    if (metric := metric_in(line)) is not None:
                        found[metric.address] = metric
        return found

    def _scan(self) -> None:
        """Note which bytes belong to which branch, from where the last scan stopped."""
        with self._path.open("rb") as file:
            file.seek(self._scanned)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or being written
                spans = self._spans.setdefault(_branch_of(line), [])
                end = self._scanned + len(line)
                if spans and spans[-1][1] == self._scanned:
                    spans[-1][1] = end
                else:
                    spans.append([self._scanned, end])
                self._scanned = end


def _branch_of(line: bytes) -> str:
    # The name is the first value of a line; only one with escapes or of other hands needs the whole parsed.
    begin = _BRANCH_FIRST.match(line)
    if begin:
        return begin[1].decode(errors="replace")
    metric = metric_in(line)
    return "" if metric is None else metric.branch


def metric_in(line: bytes) -> Metric | None:
    """Return the metric that a line holds; None if it is torn, garbled, or about something else."""
    try:
        entry = json.loads(line.removeprefix(BOM))
        metric = Metric(**entry)
    except (ValueError, TypeError, RecursionError):
        return None
    words = (metric.branch, metric.entity, metric.split, metric.metric)
    numbers = (metric.value, metric.seconds)
    whole = all(isinstance(word, str) for word in words) and type(metric.round) is int
    return metric if whole and all(type(number) in (int, float) for number in numbers) else None


def read_metrics(path: Path) -> Iterator[Metric]:
    """Yield the metrics in a log, in order, without those whose line is torn or garbled."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and (metric := metric_in(line)) is not None:
                yield metric
