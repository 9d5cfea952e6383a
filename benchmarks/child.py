"""One row of one case, alone in a process of its own: seconds per round as one line of JSON.

    python -m benchmarks.child local mlp-100 --rounds 5 --weights weights.npy

Where a row cannot take turns with others in one process (``blocks.py``), every row runs like this, and what it
needs to start and how much memory it takes is measured from outside. A row of somebody else's engine is a
command that takes the same arguments and prints the same line (see :class:`Answer`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import rows
from benchmarks.cases import CASES

EXTRA_SECONDS = 2.0
EXTRA_ROUNDS = 40


@dataclass(frozen=True)
class Answer:
    """What a row says of itself: the last line on its standard output, as JSON.

    Attributes
    ----------
    seconds : list of float
        Of every round, first to last, at least as many as asked for.
    first_round : float
        ``time.monotonic()`` at the end of the first.
    serialised : int or None
        Bytes that a round serialises; None if not known.
    note : str
        What the tables should say of the row beside numbers.
    """

    seconds: list[float]
    first_round: float
    serialised: int | None = None
    note: str = ""


def measure(row: rows.Row, rounds: int, weights: Path) -> Answer:
    """Run a row; the weights after ``rounds`` rounds go into a file.

    Rounds so short that these are soon over are followed by more, whose weights nobody sees.
    """
    torch.set_num_threads(row.threads)
    seconds: list[float] = []
    first_round = 0.0
    while len(seconds) < rounds or (sum(seconds[1:]) < EXTRA_SECONDS and len(seconds) < EXTRA_ROUNDS):
        row.prepare(len(seconds) + 1, row.vector())
        began = time.perf_counter()
        row.run()
        seconds.append(time.perf_counter() - began)
        first_round = first_round or time.monotonic()
        if len(seconds) == rounds:
            np.save(weights, row.vector().numpy())
    return Answer(seconds, first_round, row.serialised, row.note)


def main(
    row: Annotated[str, typer.Argument(help="The row's name.")],
    case: Annotated[str, typer.Argument(help="The case's name.")],
    rounds: Annotated[int, typer.Option(min=1)],
    weights: Annotated[Path, typer.Option(help="Where to leave the weights after so many rounds (.npy).")],
    threads: Annotated[int, typer.Option(min=1, help="In total.")] = 1,
) -> None:
    """Measure a row in this process."""
    with tempfile.TemporaryDirectory(prefix="fedunlearn-") as folder:
        try:
            made = rows.make(row, CASES[case], Path(folder), threads)
        except rows.UnavailableError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from None
        try:
            answer = measure(made, rounds, weights)
        finally:
            made.close()
    print(json.dumps(asdict(answer)))


if __name__ == "__main__":
    typer.run(main)
