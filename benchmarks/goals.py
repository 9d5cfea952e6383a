"""What the engines must show: every goal as a ratio of two measured rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks import ratios
from benchmarks.ratios import Ratio
from benchmarks.results import Result, Results, ratio

OURS = ("local", "batched", "auto", "ray")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A ratio and what it must not exceed, or reach.

    Attributes
    ----------
    over, under : tuple[str, ...]
        Rows: the ratio is ``over`` / ``under``. Of several, the one with the smallest median.
    quantity : str
        What is divided: seconds per steady round, seconds until the first round is done, or bytes.
    at_most, at_least : float or None
        One of the two.
    upper : float or None
        What the upper end of the 95 % interval must not exceed.
    """

    what: str
    case: str
    over: tuple[str, ...]
    under: tuple[str, ...]
    quantity: Literal["seconds", "first_round", "peak_memory"] = "seconds"
    at_most: float | None = None
    at_least: float | None = None
    upper: float | None = None
    threads: int = 1

    @property
    def goal(self) -> str:
        """The goal as the table prints it."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        upper = "" if self.upper is None else f", interval ≤ {self.upper:g}"
        return f"≤ {self.at_most:g}{upper}"

    def met_by(self, found: Ratio) -> bool:
        """Whether a measured ratio reaches it."""
        if self.at_least is not None:
            return found.value >= self.at_least
        assert self.at_most is not None
        return found.value <= self.at_most and (self.upper is None or found.high <= self.upper)


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured.

    Attributes
    ----------
    ratio : Ratio or None
        None if a row was not measured; ``why`` says which.
    rows : str
        The two rows that were compared.
    """

    goal: Goal
    ratio: Ratio | None
    rows: str = ""
    why: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if it was not measured."""
        return None if self.ratio is None else self.goal.met_by(self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            **asdict(self.goal),
            "rows": self.rows,
            "ratio": None if self.ratio is None else self.ratio.to_dict(),
            "met": self.met,
            "why": self.why,
        }


def _faster_than_flower(case: str, title: str, at_least: float) -> Goal:
    return Goal(
        what=f"stock Flower over our best, {title}",
        case=case,
        over=("flower",),
        under=OURS,
        at_least=at_least,
    )


GOALS = (
    Goal(
        what="local over bare loop, resnet18 × 10 × 256, 1 worker",
        case="resnet18-10x256",
        over=("local",),
        under=("bare",),
        at_most=1.03,
        upper=1.06,
    ),
    Goal(
        what="local over bare loop, mlp × 100", case="mlp-100", over=("local",), under=("bare",), at_most=1.2
    ),
    Goal(
        what="bare loop over stacks of clients, mlp × 100",
        case="mlp-100",
        over=("bare",),
        under=("batched",),
        at_least=5,
    ),
    Goal(
        # Two equal rows differ by as much in a run: 2 %.
        what="auto over the better of one by one and stacks, small-cnn × 100",
        case="small-cnn-100",
        over=("auto",),
        under=("local", "batched"),
        at_most=1.02,
    ),
    _faster_than_flower("mlp-100", "mlp × 100", 30),
    _faster_than_flower("small-cnn-100", "small-cnn × 100", 1.5),
    _faster_than_flower("resnet18-10x8", "resnet18 × 10 × 8", 1.5),
    _faster_than_flower("resnet18-10x256", "resnet18 × 10 × 256", 1.05),
    Goal(
        what="peak memory, stock Flower over local, resnet18 × 50",
        case="resnet18-50x8",
        over=("flower",),
        under=("local",),
        quantity="peak_memory",
        at_least=4,
    ),
    Goal(
        what="local over 10 memcpys of the model, no-op 45 MB × 10",
        case="noop-45MB",
        over=("local",),
        under=("bare",),
        at_most=3,
    ),
    Goal(
        what="command to first round, `flwr run` over `fedunlearn run`, mlp × 100",
        case="mlp-100",
        over=("flower",),
        under=("command",),
        quantity="first_round",
        at_least=5,
    ),
)
"""In the order in which they were set. That a killed Ray worker changes nothing is ``killed.py``'s to show."""


def verdict(goal: Goal, results: Results) -> Verdict:
    """Compare what was measured with a goal."""
    over, under = (_best(goal, rows, results) for rows in (goal.over, goal.under))
    if over is None or under is None:
        return Verdict(goal, None, why=_why(goal, goal.over if over is None else goal.under, results))
    names = f"{over.row} / {under.row}"
    if goal.quantity == "seconds":
        found = ratio(over, under)
        return Verdict(goal, found, names, "" if found else "the two were not measured in the same way")
    numbers = [[[float(x)] for x in getattr(r, goal.quantity)] for r in (over, under)]
    return Verdict(goal, ratios.of_blocks(*numbers), names)


def _best(goal: Goal, rows: Sequence[str], results: Results) -> Result | None:
    """Return the row with the smallest median, measured in the way in which all are that count here."""
    found = [results.get(goal.case, goal.threads, row) for row in rows]
    there = [r for r in found if r is not None and getattr(r, goal.quantity)]
    if goal.quantity != "seconds":
        return there[0] if there else None
    if "flower" in goal.over:
        there = [r for r in there if any(r.blocks)]
        return min(there, key=lambda r: ratios.median_of_blocks(r.blocks), default=None)
    return min(there, key=lambda r: r.median or 0.0, default=None)


def _why(goal: Goal, rows: Sequence[str], results: Results) -> str:
    for row in rows:
        found = results.get(goal.case, goal.threads, row)
        if found is not None and found.missing:
            return f"{row}: {found.missing.splitlines()[0]}"
    return f"{' or '.join(rows)}: not measured"
