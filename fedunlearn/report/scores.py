"""The scorecard, asked by (label, moment, metric). Absent and null are one thing here: ``None``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn.errors import RunError
from fedunlearn.report.quality import QUALITIES, Quality
from fedunlearn.report.words import MOMENTS, SMOKE, VALIDATION, metric_order, origin_words

REFERENCES = ("original", "retrain")
"""Labels that are no method: what was trained, and what it is held against."""

JUDGED = ("compare", "cap", "final", "recovered", "unlearned")
"""The moments at which a method may be judged, the fairest first: all methods at one round."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Stat:
    """A mean over seeds and requests with its spread and 95 % bootstrap interval; ``None`` = not measured."""

    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


class Scores:
    """Read-only view of one scorecard dictionary (``scorecard.json``, schema 1).

    Attributes
    ----------
    quality : Quality
        What this task's models are judged by.
    origin : str
        What must be known of where the data are from, see :func:`fedunlearn.report.words.origin_words`.
    smoke : bool
        Whether it was a smoke run, whose numbers mean nothing.
    unseen : str
        Which split the measures of the test split are of.
    engine : str
        What ran it, such as "ray, 4 workers"; empty where nobody knows.
    augmentation : str
        What training images were changed by, as the experiment file has it; empty where nobody knows.
    directory : str
        Where the run lies; empty where nobody knows.

    Raises
    ------
    RunError
        When it is the scorecard of a task that this version does not know.
    """

    def __init__(self, scorecard: Json) -> None:
        task = str(scorecard.get("task") or "classification")
        if task not in QUALITIES:
            raise RunError(
                f"scorecard.json: task = {task!r}: must be one of {list(QUALITIES)}; update fedunlearn"
            )
        self.quality: Quality = QUALITIES[task]
        self.origin = str(scorecard.get("origin") or "")
        self.smoke = bool(scorecard.get("smoke"))
        self.unseen = str(scorecard.get("unseen") or "test")
        self.engine = str(scorecard.get("engine") or "")
        self.augmentation = str(scorecard.get("augmentation") or "")
        self.directory = str(scorecard.get("directory") or "")
        self.experiment = str(scorecard.get("experiment") or "experiment")
        self.run = str(scorecard.get("run") or "")
        self.rows: list[Json] = [row for row in scorecard.get("rows") or [] if row.get("label")]
        self._aggregates: dict[tuple[str, str], Json] = {
            (entry["label"], entry.get("at") or ""): entry
            for entry in scorecard.get("aggregates") or []
            if entry.get("label")
        }
        present = list(
            dict.fromkeys([row["label"] for row in self.rows] + [key[0] for key in self._aggregates])
        )
        self.methods: tuple[str, ...] = tuple(label for label in present if label not in REFERENCES)
        self.labels: tuple[str, ...] = tuple(ref for ref in REFERENCES if ref in present) + self.methods

    @property
    def caveat(self) -> str:
        """What must be read before any number; empty where nothing must."""
        words = (SMOKE * self.smoke, origin_words(self.origin), VALIDATION * (self.unseen == "validation"))
        return " ".join(filter(None, words))

    def groups(self) -> list[tuple[str, str]]:
        """Return every (label, at) with an aggregate or a row: labels in order, moments as they happen."""
        present = set(self._aggregates) | {(row["label"], row.get("at") or "") for row in self.rows}
        moments = list(MOMENTS)

        def place(group: tuple[str, str]) -> tuple[int, int, str]:
            label, at = group
            return self.labels.index(label), moments.index(at) if at in moments else len(moments), at

        return sorted(present, key=place)

    def is_method(self, label: str) -> bool:
        """Return whether the label forgets something."""
        return label in self.methods

    def rows_at(self, label: str, at: str) -> list[Json]:
        """Return the rows of one label at one moment, in file order."""
        return [row for row in self.rows if row["label"] == label and (row.get("at") or "") == at]

    def stat(self, label: str, at: str, kind: str, metric: str | None = None) -> Stat:
        """Return an aggregate: ``kind`` is metrics, gap, abs_gap, floor, or recovery_rounds (no metric)."""
        entry = self._aggregates.get((label, at), {}).get(kind) or {}
        if metric is not None:
            entry = entry.get(metric) or {}
        mean, std, low, high = (entry.get(part) for part in ("mean", "std", "low", "high"))
        return Stat(mean, std, low, high, entry.get("n") or 0)

    def count(self, label: str, at: str) -> int:
        """Return over how many (seed, request) pairs this aggregate goes."""
        return int(self._aggregates.get((label, at), {}).get("n") or len(self.rows_at(label, at)))

    def censored(self, label: str, at: str) -> int:
        """Return how many of them never recovered."""
        return int(self._aggregates.get((label, at), {}).get("censored") or 0)

    def diverged(self, label: str, at: str) -> int:
        """Return how many of them have no model, because its weights became no numbers."""
        return int(self._aggregates.get((label, at), {}).get("diverged") or 0)

    def diverged_at(self, label: str) -> str | None:
        """Return the fairest moment at which the label had no model in some of the cases, if there is any."""
        return next((at for at in JUDGED if self.diverged(label, at)), None)

    def failed(self, label: str, at: str) -> int:
        """Return how many of them have no numbers, because the forgetting failed."""
        return int(self._aggregates.get((label, at), {}).get("failed") or 0)

    def failures(self) -> dict[str, list[str]]:
        """Return by label why its forgetting failed, each reason once, of those where it did."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.get("failed"):
                why = str(row.get("reason") or "failed").partition("; recovery: ")[0]
                reasons = found.setdefault(row["label"], [])
                reasons += [why] * (why not in reasons)
        return found

    def failed_at(self, label: str) -> str | None:
        """Return the fairest moment at which the label's forgetting had failed in some of the cases, if any."""
        return next((at for at in JUDGED if self.failed(label, at)), None)

    def cost(self, label: str, at: str, name: str) -> float | None:
        """Return the mean cost over the rows that recorded it."""
        recorded = [(row.get("cost") or {}).get(name) for row in self.rows_at(label, at)]
        values = [float(value) for value in recorded if value is not None]
        return sum(values) / len(values) if values else None

    def judged_at(self, label: str) -> str | None:
        """Return the fairest moment at which the label's gap on the forgotten data is known."""
        metric = self.quality.of("forget")
        return next((at for at in JUDGED if self.stat(label, at, "abs_gap", metric).mean is not None), None)

    def recovery(self, label: str) -> tuple[Stat, int, int]:
        """Return (recovery rounds, how many never recovered, of how many) of one label.

        Every answered request has a row at ``unlearned``; later moments lack those that did not get so far.
        Superseded requests are in neither number: their recovery was not awaited.
        """
        present = {at for owner, at in self.groups() if owner == label}
        at = next((at for at in ("unlearned", *JUDGED) if at in present), "")
        stat, never = self.stat(label, at, "recovery_rounds"), self.censored(label, at)
        return stat, never, stat.n + never

    def metrics(self) -> list[str]:
        """Return the metrics with a value in some row or aggregate, in the order of display."""
        names: list[str] = []
        for holder in [*self.rows, *self._aggregates.values()]:
            names += [name for name, value in (holder.get("metrics") or {}).items() if value is not None]
        return metric_order(names)
