"""A quick check that nothing has become slower: ratios to the bare loop against those on record.

Seconds differ from machine to machine and from moment to moment, ratios of rows that take turns in one process
hardly do. There is generous room all the same (``factor`` in the file), and whoever fails is measured once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ratios
from benchmarks.cases import CASES, Case
from benchmarks.machine import machine
from benchmarks.measure import in_turns
from benchmarks.rows import REFERENCE
from fedunlearn.errors import UserError

RECORDED = Path(__file__).resolve().parent / "recorded.json"
FACTOR = 1.5
REMEDY = "python -m benchmarks.engines --record"

GUARDED: dict[Case, tuple[str, ...]] = {
    CASES["mlp-100"].shortened(50): ("local", "batched"),
    CASES["resnet18-10x8"].shortened(3): ("local",),
    CASES["noop-45MB"].shortened(20): ("local",),
}
"""Case, with few rounds → rows whose ratio to the bare loop is guarded."""

Found = Mapping[str, float | str]
"""Row → ratio to the bare loop, or why there is none."""
Measure = Callable[[Case, Sequence[str]], Found]


@dataclass(frozen=True)
class Record:
    """What is on record.

    Attributes
    ----------
    factor : float
        A ratio may be so many times the recorded one.
    ratios : dict
        (case, row) → ratio to the bare loop.
    """

    factor: float
    ratios: Mapping[tuple[str, str], float]

    @classmethod
    def read(cls, path: Path = RECORDED) -> Record:
        """Read a file that :func:`record` wrote."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(found["factor"], {(r["case"], r["row"]): r["ratio"] for r in found["ratios"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: holds no recorded ratios ({error}); run {REMEDY}") from error


def measured(case: Case, rows: Sequence[str]) -> Found:
    """Measure the ratios of a case."""
    turns, missing, _ = in_turns(case, rows)
    bare = turns.seconds[REFERENCE]
    return missing | {
        row: ratios.paired(turns.seconds[row], bare).value for row in rows if row not in missing
    }


def check(
    record: Record,
    measure: Measure = measured,
    guarded: Mapping[Case, Sequence[str]] = GUARDED,
    report: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Return one line for every row that is slower than the record allows, measured twice, or not there.

    Parameters
    ----------
    report
        Called with a line for every row.
    """
    failures = []
    for case, rows in guarded.items():
        found = measure(case, rows)
        if any(_complaint(record, case, row, found[row]) for row in rows):
            again = measure(case, rows)
            found = {row: _better(found[row], again[row]) for row in rows}
        for row in rows:
            why = _complaint(record, case, row, found[row])
            if why:
                failures.append(why)
            report(why or _fine(record, case, row, found[row]))
    return failures


def record(
    path: Path = RECORDED,
    measure: Measure = measured,
    guarded: Mapping[Case, Sequence[str]] = GUARDED,
) -> Record:
    """Measure everything guarded and write it down; what cannot be measured here is left out."""
    found = {
        (case.name, row): ratio
        for case, rows in guarded.items()
        for row, ratio in measure(case, rows).items()
        if not isinstance(ratio, str)
    }
    entries = [
        {"case": case, "row": row, "over": REFERENCE, "ratio": round(ratio, 4)}
        for (case, row), ratio in found.items()
    ]
    content = {"factor": FACTOR, "machine": machine(), "ratios": entries}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Record(FACTOR, found)


def _complaint(record: Record, case: Case, row: str, found: float | str) -> str:
    """Say what is wrong with a measured ratio, or return an empty string."""
    on_record = record.ratios.get((case.name, row))
    if isinstance(found, str):
        return f"{case.name}, {row}: cannot be measured any more: {found}" if on_record else ""
    if on_record is None:
        return f"{case.name}, {row}: {found:.2f} × the bare loop, and nothing on record: {REMEDY}"
    allowed = record.factor * on_record
    if found <= allowed:
        return ""
    return (
        f"{case.name}, {row}: {found:.2f} × the bare loop, recorded {on_record:.2f}, allowed {allowed:.2f} "
        f"({record.factor:g} ×)"
    )


def _fine(record: Record, case: Case, row: str, found: float | str) -> str:
    if isinstance(found, str):
        return f"{case.name}, {row}: not here ({found}), and not on record"
    return f"{case.name}, {row}: {found:.2f} × the bare loop, recorded {record.ratios[case.name, row]:.2f}"


def _better(first: float | str, second: float | str) -> float | str:
    if isinstance(first, str) or isinstance(second, str):
        return second
    return min(first, second)
