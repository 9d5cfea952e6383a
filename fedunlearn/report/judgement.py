"""From a method's numbers beside retraining to a level and a sentence: one pure function and what it goes by.

With |gap| the mean absolute gap to retrain on the forgotten data, in accuracy or whatever else the task is judged by,
and the floor the same between retrainings, all of them over the same cases (seed and forgotten data):

- where the original is within the floor, before anything is forgotten, *nothing can be told* (``unknown``);
- a method within the floor *forgot* (``good``), in part where it did not recover (``fair``);
- one that is below the retrained model on the forgotten data *forgot too much*: ``fair`` while it is nearer to it
  than the original and natural forgetting are, else ``poor``;
- one above it *closed part of the gap* (``fair``), or, no nearer than the original or natural forgetting,
  *did no better than waiting* (``poor``).

Natural forgetting, which is waiting, is the ``baseline`` unless it is within the floor.

In which cases a method forgot too much and in which too little is told only where the original is many floors away:
else a few samples decide on which side of its floor a case lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedunlearn.plurals import counted
from fedunlearn.report.words import number

Level = Literal["good", "fair", "poor", "baseline", "unknown"]

NOTHING_TO_TELL = (
    "this says nothing about forgetting: even the original model is as close to retraining as another "
    "retraining is"
)
TELLING = 3.0
"""The original's gap should be this many floors wide before any method can be told from another."""
WITHIN = "it is as close to retraining as another retraining is"


@dataclass(frozen=True)
class Evidence:
    """The numbers of one method, every one over the same n cases; ``None`` = not measured.

    Attributes
    ----------
    gap : float
        Mean |gap| to retrain on the forgotten data.
    signed : float
        Mean gap: negative when the model is worse on the forgotten data than a retrained one.
    floor : float or None
        Mean over cases of the median |gap| between retrainings, in the method's round.
    before, its_floor : float or None
        The original's |gap| when the request arrived, and the floor in that round.
    natural : float or None
        Natural forgetting's |gap| in the method's round; None for itself.
    n : int
        Cases.
    above, below : int
        Cases in which the gap is more than their floor, to either side.
    recovered, awaited : int
        Cases in which it recovered, of those in which that was awaited.
    """

    gap: float
    signed: float
    floor: float | None = None
    before: float | None = None
    its_floor: float | None = None
    natural: float | None = None
    n: int = 1
    above: int = 0
    below: int = 0
    recovered: int = 0
    awaited: int = 0

    @property
    def within(self) -> bool:
        """Whether the method cannot be told from a retrained model."""
        return self.floor is not None and self.gap <= self.floor

    @property
    def floors(self) -> float:
        """The larger of the floors in the method's round and in the original's; 0 where none was measured."""
        return max(self.floor or 0.0, self.its_floor or 0.0)

    @property
    def little(self) -> bool:
        """Whether the original can be told from a retrained model, but there is little to tell methods apart by."""
        return self.before is not None and self.floors < self.before < TELLING * self.floors

    @property
    def tells(self) -> bool:
        """Whether the original can be told from a retrained model; where it was not measured, nobody knows."""
        return self.before is None or self.before > self.floors


def judge(found: Evidence, *, word: str, waiting: bool = False) -> tuple[Level, str]:
    """Return the level and what is to be said, without the method's name before it and the full stop behind it.

    Parameters
    ----------
    word
        What the task's quality is called, such as "accuracy".
    waiting
        Whether this is natural forgetting: nothing is unlearned, so nothing is called forgotten.
    """
    if not found.tells:
        return _blind(found)
    if found.before is None:
        return "unknown", "the original's gap was not measured"
    if waiting:
        return _wait(found)
    level, words = _forget(found, word)
    if found.recovered < found.awaited:
        times = f"It recovered in {found.recovered} of {found.awaited} cases"
        words += f". {times if found.recovered else 'It never recovered'}"
        level = "fair" if level == "good" else level
    return level, words


def _forget(found: Evidence, word: str) -> tuple[Level, str]:
    """Judge a method where the original can be told from a retrained model."""
    assert found.before is not None
    if found.within:
        alike = found.natural is not None and found.floor is not None and found.natural <= found.floor
        return "good", f"forgot, by forget {word}: {WITHIN}" + ", and so is continued training" * alike
    if found.signed < 0:
        return _too_much(found)
    if found.gap >= found.before:
        return "poor", "did not forget: no closer to retraining than the original model"
    if found.natural is not None and found.gap >= found.natural:
        return "poor", "forgot no more than continued training without the forgotten data does"
    words = f"closed {_closed(found)} of the gap to retraining"
    beyond = found.below and not found.little
    return "fair", words + (f". It forgot too much in {_cases(found.below, found.n)}" if beyond else "")


def _blind(found: Evidence) -> tuple[Level, str]:
    """Judge where the original is within the floor: only harm can be told, of a method that is beyond both."""
    if found.gap <= found.floors:
        return "unknown", NOTHING_TO_TELL
    if found.signed < 0:
        return "poor", f"forgot too much: {_below(found)}. The original was within the floor"
    return (
        "poor",
        "did not forget: further from retraining than the original model. That was within the floor",
    )


def _too_much(found: Evidence) -> tuple[Level, str]:
    words = f"forgot too much: {_below(found)}"
    if found.above and found.below and not found.little:
        words = f"forgot too much in {_cases(found.below, found.n)} and too little in {found.above}. "
        words += f"It is {_below(found)}"
    assert found.before is not None
    if found.gap >= found.before:
        return "poor", f"{words}. The original model is at least as close"
    if found.natural is not None and found.gap >= found.natural:
        return "poor", f"{words}. Continued training without the forgotten data comes closer"
    return "fair", f"{words}. The original was {number(found.before)} points away"


def _wait(found: Evidence) -> tuple[Level, str]:
    assert found.before is not None
    if found.within:
        return "good", "continued training came as close to retraining as another retraining does"
    if found.signed < 0 and found.below:
        return "baseline", f"continued training ended {_below(found)}"
    if found.gap >= found.before:
        return "baseline", "continued training closed none of the gap to retraining"
    return "baseline", f"continued training closed {_closed(found)} of the gap to retraining"


def _closed(found: Evidence) -> str:
    """Return which share of the original's |gap| is gone."""
    assert found.before
    return f"{number(100 * (1 - found.gap / found.before), 0)} %"


def _below(found: Evidence) -> str:
    """Return the mean gap, and the mean |gap| where some cases are above the retrained model."""
    below, away = number(-found.signed), number(found.gap)
    words = f"{below} points below a retrained model on the forgotten data"
    if found.n == 1:
        return words
    return f"on average {words}" + f" ({away} points away, in either direction)" * (away != below)


def _cases(some: int, every: int) -> str:
    return f"{some} of {counted(every, 'case')}"
