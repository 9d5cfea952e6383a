"""What of a finished run may not change: weights, trail, scores and costs, each a short text under a name."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from fedunlearn.certificates.findings import Finding
from fedunlearn.certificates.verification import verify
from fedunlearn.evaluation.aggregates import COSTS
from fedunlearn.evaluation.rows import AT
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.requests import Ledger
from fedunlearn.requests.records import AuditEntry
from fedunlearn.runs.directory import LEDGER, RunDirectory
from fedunlearn.simulation.runner import read_scorecard

Facts = Mapping[str, Mapping[str, str]]
"""Section → name → what it is: ``facts["weights"]["original-s1"]``."""
Row = Mapping[str, Any]
"""A row of ``scorecard.json``."""

CASE = ("label", "method", "seed", "request", "target", "at", "round")
"""Columns of a scorecard that say what a row is about; beside them whose data were forgotten."""
OUTCOMES = {
    "recovery": ("recovered", "recovery_rounds", "recovery_rounds_authors"),
    "failures": ("diverged", "failed"),
    "outliers": ("outliers",),
    "per client": ("per_client",),
    "per class": ("per_class",),
}
"""Name → columns that are scores together; left out where no row has any."""
BY_MEASURE = ("metrics", "gap", "floor", "floors")
"""Columns that hold numbers by measure."""
APART = ("forget", "scale", "cost")
"""Columns of which only a part is compared, or under a heading of its own."""
UNCOMPARED = ("reason",)
"""Columns of words, which may be put better."""

_SUBJECT = re.compile(r"(?P<what>.+?) of (?:(?P<number>\d+) branches \(.*?\)|[^:]+): .*")


def read(folder: Path) -> Facts:
    """Return what may not change of a finished run.

    This function alone knows how a run's folder is laid out. Where that changes, it is changed, and the recorded
    facts stay.

    Returns
    -------
    dict
        ``weights``: branch → round and hash of its last model. ``trail``: request → its states, with their rounds.
        ``verified``: what ``fedunlearn verify`` finds good, or BAD. ``scores``: measure → hash of its numbers in all
        rows. ``figures``: label → a few of these numbers to be read. ``costs``: label → its costs.
    """
    run = RunDirectory(folder)
    try:
        weights = {}
        for branch in run.branches():
            last = run.checkpoints(branch).latest()
            if last is None:  # of a method that diverged in its first round
                weights[branch] = "none"
                continue
            tensors = {f"buffers/{name}": values for name, values in last.buffers.items()}
            tensors["parameters"] = last.vector
            weights[branch] = f"round {last.round}, {content_hash(tensors)}"
    finally:
        run.close()
    with Ledger(folder / LEDGER, read_only=True) as ledger:
        entries = [entry for branch in ledger.branches() for entry in ledger.audit(branch)]
    card = read_scorecard(folder)
    quality = QUALITY[card.get("task", "classification")]
    return {
        "weights": weights,
        "trail": trail_of(entries),
        "verified": verified(verify(folder)),
        "scores": scores_of(card["rows"]),
        "figures": figures_of(card["rows"], quality),
        "costs": costs_of(card["rows"]),
    }


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors by name, type, shape and bytes, in whatever order and file they were."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{json.dumps(name)} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def trail_of(entries: Iterable[AuditEntry]) -> dict[str, str]:
    """Return "branch request" → the states that it went through, each with its round."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        state = entry.to_state if entry.round is None else f"{entry.to_state} {entry.round}"
        found.setdefault(f"{entry.branch} {entry.request_id}", []).append(state)
    return {request: ", ".join(states) for request, states in found.items()}


def verified(findings: Iterable[Finding]) -> dict[str, str]:
    """Return what was found good, with the number of branches of which it holds, and the text of all that is BAD."""
    good: Counter[str] = Counter()
    bad = {}
    for finding in findings:
        if finding.holds is False:
            bad[finding.text] = "BAD"
        elif finding.holds:
            subject = _SUBJECT.fullmatch(finding.text)
            good[subject["what"] if subject else finding.text] += int(
                subject["number"] or 1 if subject else 1
            )
    return {what: f"good, {number}" for what, number in good.items()} | bad


def scores_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return a hash of each measure's numbers in all rows, of what the rows are about, and of what became of it."""
    rows = sorted(rows, key=lambda row: json.dumps(_case(row)))
    found = {"rows": _digest([_case(row) for row in rows])}
    for name, columns in OUTCOMES.items():
        values = [[row.get(column) for column in columns] for row in rows]
        if any(value is not None for each in values for value in each):
            found[name] = _digest(values)
    if any(row["scale"] for row in rows):
        found["scale"] = _digest([_scale(row) for row in rows])
    for measure in sorted({measure for row in rows for measure in row["metrics"]}):
        found[measure] = _digest(
            [[row.get(column, {}).get(measure) for column in BY_MEASURE] for row in rows]
        )
    return found


def figures_of(rows: Sequence[Row], quality: str) -> dict[str, str]:
    """Return of each label's last moment the mean quality on each split, and in how many rounds it recovered."""
    found = {}
    for label, of_label in _by_label(rows).items():
        at = max((row["at"] for row in of_label), key=AT.index)
        last = [row for row in of_label if row["at"] == at]
        means = [
            f"{split} {_mean(row['metrics'].get(f'{split}_{quality}') for row in last)}"
            for split in ("forget", "retain", "test")
        ]
        recovery = [str(row["recovery_rounds"]) for row in last if row["recovered"] is not None]
        after = f"; recovered in {', '.join(recovery)}" if recovery else ""
        found[label] = f"{at} ({len(last)}): {', '.join(means)} {quality}{after}"
    return found


def costs_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return each label's costs, added up over its rows, and a hash of them row by row; no seconds."""
    found = {}
    for label, of_label in _by_label(rows).items():
        of_label.sort(key=lambda row: json.dumps(_case(row)))
        sums = [f"{name} {sum(row['cost'][name] for row in of_label)}" for name in COSTS]
        each = _digest([[row["cost"][name] for name in COSTS] for row in of_label])
        found[label] = f"{', '.join(sums)}; {each}"
    return found


def _case(row: Row) -> list[Any]:
    """Return what a row is about: of what is forgotten the data themselves, and not the words or numbers for them."""
    return [
        *(row[column] for column in CASE),
        *(row["forget"][of] for of in ("clients", "samples", "classes")),
    ]


def _scale(row: Row) -> list[Any] | None:
    scale = row["scale"]
    return scale and [scale["raw"], scale["group"], sorted(scale["effective"].values())]


def _by_label(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row)
    return found


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.4f}" if known else "unknown"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
