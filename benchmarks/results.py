"""What was measured, as the JSON file keeps it: one record per case, number of threads and row.

``"schema": 1``: {"machine", "finished": [[threads, case]], "cases": {name: the case's settings}, "results": [record],
"checks": [check], "goals": [verdict]}. A record holds every counted second, so that any statistic can be
recomputed from the file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import ratios
from benchmarks.ratios import Ratio
from benchmarks.rows import REFERENCE
from fedunlearn.errors import UserError

SCHEMA = 1


@dataclass
class Result:
    """One row of one case.

    Attributes
    ----------
    threads : int
        In total.
    missing : str or None
        Why nothing was measured.
    note : str
        What the row says of itself: what was chosen, and why.
    turns : list of float
        Seconds of the rounds that it took in turns with other rows of the process.
    turns_difference : float or None
        Largest difference of a weight to the bare loop's after one round from the same weights.
    blocks : list of lists of float
        Seconds of the steady rounds of each process of its own.
    blocks_difference : float or None
        Largest difference of a weight to the bare loop's after all rounds.
    first_round : list of float
        Seconds from each command to the end of its first round.
    peak_memory : list of int
        Bytes (PSS) of each command's processes together.
    serialised : int or None
        Bytes per round.
    """

    case: str
    row: str
    threads: int
    missing: str | None = None
    note: str = ""
    turns: list[float] = field(default_factory=list)
    turns_difference: float | None = None
    blocks: list[list[float]] = field(default_factory=list)
    blocks_difference: float | None = None
    first_round: list[float] = field(default_factory=list)
    peak_memory: list[int] = field(default_factory=list)
    serialised: int | None = None

    @property
    def seconds(self) -> list[float]:
        """The counted rounds: those in turns where there are any."""
        return self.turns or list(chain.from_iterable(self.blocks))

    @property
    def median(self) -> float | None:
        """Seconds per steady round."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def difference(self) -> float | None:
        """Largest difference of a weight to the bare loop's."""
        return self.turns_difference if self.turns else self.blocks_difference


@dataclass(frozen=True)
class Check:
    """Something that must hold, and whether it does.

    Attributes
    ----------
    met : bool or None
        None if it could not be tried; ``measured`` says why.
    """

    what: str
    goal: str
    measured: str
    met: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


def ratio(numerator: Result, denominator: Result) -> Ratio | None:
    """Return the ratio of the seconds per round: pair by pair where both took turns; None if not measured."""
    if numerator.turns and denominator.turns:
        return ratios.paired(numerator.turns, denominator.turns)
    if any(numerator.blocks) and any(denominator.blocks):
        return ratios.of_blocks(numerator.blocks, denominator.blocks)
    return None


class Results:
    """All records of one run of the benchmark."""

    def __init__(self, machine: dict[str, Any]) -> None:
        self.machine = machine
        self.cases: dict[str, dict[str, Any]] = {}
        self.checks: list[Check] = []
        self.finished: list[tuple[int, str]] = []  # threads and case
        self._records: dict[tuple[str, int, str], Result] = {}

    def put(self, results: Iterable[Result]) -> None:
        """Add records, instead of older ones of the same row."""
        self._records |= {(r.case, r.threads, r.row): r for r in results}

    def get(self, case: str, threads: int, row: str) -> Result | None:
        """Return a record, if there is one."""
        return self._records.get((case, threads, row))

    def of(self, case: str, threads: int) -> list[Result]:
        """Return the records of a case."""
        return [r for r in self._records.values() if (r.case, r.threads) == (case, threads)]

    @property
    def complete(self) -> bool:
        """Whether nothing that was begun is unfinished."""
        return set(self.sections) <= set(self.finished)

    @property
    def sections(self) -> list[tuple[int, str]]:
        """Threads and case of everything measured, in order."""
        return sorted({(r.threads, r.case): None for r in self._records.values()}, key=lambda s: s[0])

    def over_bare(self, result: Result) -> Ratio | None:
        """Return the ratio of a record to the bare loop of its case and threads."""
        bare = self.get(result.case, result.threads, REFERENCE)
        return None if bare is None else ratio(result, bare)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        records = []
        for result in self._records.values():
            found = self.over_bare(result)
            records.append(
                {
                    **asdict(result),
                    "median": result.median,
                    "quartiles": ratios.spread(result.seconds) if result.seconds else None,
                    "n": len(result.seconds),
                    "over_bare": None if found is None else found.to_dict(),
                }
            )
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "finished": self.finished,
            "cases": self.cases,
            "results": records,
            "checks": [check.to_dict() for check in self.checks],
        }

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file that :func:`to_dict` made; a UserError says why it cannot be used."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise UserError(f"{path}: schema = {found['schema']}, must be {SCHEMA}")
            results = cls(found["machine"])
            results.finished = [(threads, case) for threads, case in found["finished"]]
            results.cases = found["cases"]
            results.checks = [Check(**check) for check in found["checks"]]
            names = Result.__dataclass_fields__.keys()
            results.put(Result(**{k: v for k, v in r.items() if k in names}) for r in found["results"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is no file of this benchmark's results ({error})") from error
        return results
