"""Who computes a case: the rows of the tables, and what a row must be able to do to take turns with others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from benchmarks.cases import SEED, Case
from fedunlearn import workspace

REFERENCE = "bare"
"""The row that all others are compared with."""
START_CASE = "mlp-100"
"""Where the whole command is timed to its first round."""


@dataclass(frozen=True)
class Kind:
    """A row as the tables know it.

    Attributes
    ----------
    title : str
        With ``{n}`` for the number of threads and ``{b}`` for that of clients in a stack.
    in_turns : bool
        Whether it takes turns with the others in one process; if not, it always has processes of its own.
    """

    name: str
    title: str
    in_turns: bool = True

    def fits(self, case: Case, threads: int) -> bool:
        """Whether there is such a row for a case."""
        if self.name == "local-wide":
            return threads > 1 and not case.noop_floats
        if self.name == "batched":
            return case.batch_clients > 1
        if self.name == "auto":
            return not case.noop_floats
        if self.name == "command":
            return case.name == START_CASE and threads == 1
        return True


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("bare", "bare loop"),
        Kind("local", "local, {n} × 1"),
        Kind("local-wide", "local, 1 × {n}"),
        Kind("batched", "local, stacks of {b}"),
        Kind("auto", "auto"),
        Kind("ray", "ray, {n} × 1", in_turns=False),
        Kind("flower", "stock Flower, {n} × 1", in_turns=False),
        Kind("command", "`fedunlearn run`", in_turns=False),
    )
}
"""All rows but external ones. ``2 × 1``: two workers of one thread each. The last is only timed to its start."""


class UnavailableError(Exception):
    """A row cannot be measured here; the message says why, in a few words."""


class Row(Protocol):
    """One engine at work on one case.

    Attributes
    ----------
    threads : int
        PyTorch's intra-op threads of this process while a round runs.
    note : str
        What the tables should say of it beside numbers.
    serialised : int or None
        Bytes serialised in the last round; None if not known.
    """

    threads: int
    note: str

    @property
    def serialised(self) -> int | None: ...

    def prepare(self, number: int, start: Tensor) -> None:
        """Get ready, outside the clock, for a round from the weights ``start``, which nobody may change."""

    def run(self) -> None:
        """Run the round."""

    def vector(self) -> Tensor:
        """Return the weights it ended in, flat."""

    def close(self) -> None:
        """Stop whatever was started."""


def make(name: str, case: Case, folder: Path, threads: int) -> Row:
    """Return a row at work on a case, from the initial weights that the seed draws; files go into the folder.

    Raises
    ------
    UnavailableError
        If it cannot be measured here.
    """
    if name != REFERENCE:
        from benchmarks.ours import federation  # Flower's import is not part of a bare loop's start

        return federation(name, case, folder, threads)
    from benchmarks.bare import BareLoop, Memcpy

    if case.noop_floats:
        return Memcpy(case.noop_floats, case.num_clients, threads)
    path = folder / f"{name}.toml"
    path.write_text(case.toml(), encoding="utf-8")
    experiment = workspace.experiment_at(str(path))
    return BareLoop(experiment, workspace.data_of(experiment, SEED), SEED, threads)
