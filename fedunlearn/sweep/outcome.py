"""What came of a sweep's trials: each with its score, and the best of every method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from fedunlearn.evaluation.aggregates import summary
from fedunlearn.evaluation.metric import Metric
from fedunlearn.sweep.file import Trial


@dataclass(frozen=True)
class Tried:
    """A trial and what it came to.

    Attributes
    ----------
    trial : Trial
    scores : tuple of float or None
        A number per seed and target set; None where it could not be taken.
    seconds : float
        Of the rounds up to the moment it is measured at, the mean.
    reason : str or None
        Why a score is missing.
    """

    trial: Trial
    scores: tuple[float | None, ...]
    seconds: float
    reason: str | None = None

    @property
    def score(self) -> float | None:
        """The mean, or None where not every seed and target set has a number: a trial that failed once is out."""
        known = [score for score in self.scores if score is not None]
        return fmean(known) if known and len(known) == len(self.scores) else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "trial": self.trial.number,
            "settings": dict(self.trial.settings),
            "scores": list(self.scores),
            "score": summary(self.scores),
            "seconds": self.seconds,
            "reason": self.reason,
        }


def read_trials(
    trials: Sequence[Trial], scorecard: Mapping[str, Any], *, by: str, at: str, expected: int
) -> tuple[Tried, ...]:
    """Return what a run's scorecard says of its trials.

    Parameters
    ----------
    trials
        The run's methods.
    scorecard
        Of the run.
    by, at
        The measure, and after which round.
    expected
        How many numbers each should have: seeds × target sets. One without a row at this moment lacks its number.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in scorecard["rows"]:
        if row["at"] == at:
            rows.setdefault(row["label"], []).append(row)
    found = []
    for trial in trials:
        mine = rows.get(trial.method.label, [])
        scores = [row["metrics"].get(by) for row in mine]
        reasons = [row.get("reason") for row in mine if row["metrics"].get(by) is None]
        missing = expected - len(scores)
        if missing:
            # A row at another moment may know why.
            reasons += [
                row.get("reason")
                for row in scorecard["rows"]
                if row["label"] == trial.method.label and (row.get("failed") or row.get("diverged"))
            ]
            reasons.append(f"no row at {at}: see the run's log for the reason")
        found.append(
            Tried(
                trial,
                (*scores, *([None] * missing)),
                fmean(row["cost"]["seconds"] for row in mine) if mine else 0.0,
                next((reason for reason in reasons if reason), None),
            )
        )
    return tuple(found)


class References(NamedTuple):
    """Between what the scores lie: of the model that was never asked to forget, and of a second retrained one."""

    original: float | None
    floor: float | None


def read_references(scorecard: Mapping[str, Any], *, by: Metric, at: str) -> References:
    """Return the means over seeds and target sets, the floor in the round of the scores; None where there is none."""
    original, floor = [], {}
    for row in scorecard["rows"]:
        if row["label"] == "original":
            original.append(row["metrics"].get(by.name))
        elif row["at"] == at and (away := row["floor"].get(by.name)) is not None:
            # Every trial of a seed and target set stands beside the same two retrained models.
            floor[row["seed"], row["target"]] = (by.retrained_value or 0.0) - _sign(by) * away
    return References(summary(original)["mean"], summary(floor.values())["mean"])


def _sign(by: Metric) -> int:
    return -1 if by.better == "lower" else 1


def best(tried: Iterable[Tried], by: Metric) -> Tried | None:
    """Return the trial with the best score, of equal ones the first; None where none has a score."""
    scored = [(each, each.score) for each in tried]
    known = [(each, score) for each, score in scored if score is not None]
    if not known:
        return None
    return max(known, key=lambda pair: _sign(by) * pair[1])[0]
