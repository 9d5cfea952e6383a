"""Rows that take turns in one process, round by round, so that a slow moment of the machine meets them all.

A B C, C B A, A B C, …: every other round in the opposite order. All start a round from the same weights and must
end it in the same weights, or nothing is reported. (Left to themselves they would drift apart: their averages
may differ in the last bit, and two rounds of resnet18 multiply that by a thousand.)

Warm-up rounds are not counted. The garbage collector stays on and is never called: what it takes from a round
counts for that round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.rows import REFERENCE, Row
from fedunlearn.errors import RunError


@dataclass
class Turns:
    """What was measured.

    Attributes
    ----------
    seconds : dict[str, list[float]]
        Row → seconds of every counted round; the i-th of all rows belong together.
    difference : dict[str, float]
        Row → largest difference of a weight to the reference's after the same round.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)


def take_turns(
    rows: Mapping[str, Row],
    *,
    rounds: int,
    warm_up: int,
    tolerance: Mapping[str, float],
    report: Callable[[int], None] = lambda number: None,
) -> Turns:
    """Run ``warm_up`` and then ``rounds`` rounds of each row.

    Parameters
    ----------
    rows
        One of them is the reference, from whose weights all start the next round.
    tolerance
        Row → largest difference to the reference that still counts as the same work.
    report
        Called with the number of each round as it begins.

    Raises
    ------
    RunError
        If a row ends a round in other weights than the reference.
    """
    found = Turns({name: [] for name in rows}, dict.fromkeys(rows, 0.0))
    start = rows[REFERENCE].vector()
    names = list(rows)
    for number in range(1, warm_up + rounds + 1):
        report(number)
        for name in names:
            row = rows[name]
            torch.set_num_threads(row.threads)
            row.prepare(number, start)
            began = time.perf_counter()
            row.run()
            seconds = time.perf_counter() - began
            if number > warm_up:
                found.seconds[name].append(seconds)
        expected = rows[REFERENCE].vector()
        for name, row in rows.items():
            difference = (row.vector() - expected).abs().max().item()
            if not difference <= tolerance[name]:
                raise RunError(
                    f"the weights of {name} and {REFERENCE} differ by {difference:.1e} after round {number}, "
                    f"allowed is {tolerance[name]:g}: they do not do the same work, and no ratio is reported"
                )
            found.difference[name] = max(found.difference[name], difference)
        start = expected
        names.reverse()
    return found
