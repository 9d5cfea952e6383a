"""Rows in processes of their own, in turns: ours, theirs, ours, theirs.

Only so can stock Flower be compared, and only so is it known what an engine needs to start and how much memory
all its processes take together. A block is one process, or all that a command starts, and runs one round that
belongs to the start and then some steady ones. All start from the same weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import stock_flower
from benchmarks.cases import SEED, Case
from benchmarks.flower_command import FlowerCase
from benchmarks.launch import TIMEOUT, Command, launched
from fedunlearn.errors import RunError, UserError

Report = Callable[[str], None]


@dataclass(frozen=True)
class Block:
    """What one process, or tree of processes, did.

    Attributes
    ----------
    seconds : list of float
        Of its steady rounds: all but the first.
    first_round : float
        Seconds from launching the command until the first round was complete.
    peak_memory : int or None
        Largest sum of proportional set sizes of all processes, bytes; None where that is not known.
    serialised : int or None
        Bytes per round.
    weights : Tensor or None
        After as many rounds as asked for, flat.
    note : str
        What the row says of itself.
    """

    seconds: list[float]
    first_round: float
    peak_memory: int | None
    serialised: int | None = None
    weights: Tensor | None = None
    note: str = ""


@dataclass
class Blocks:
    """What was measured, by row."""

    of: dict[str, list[Block]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Row → why it has no blocks."""

    def difference(self, name: str, reference: str) -> float | None:
        """Return the largest difference between a weight of two rows after the same rounds."""
        ours, theirs = (self.of.get(row, [])[-1:] for row in (name, reference))
        if not ours or not theirs or ours[0].weights is None or theirs[0].weights is None:
            return None
        if ours[0].weights.shape != theirs[0].weights.shape:
            raise RunError(
                f"{name} has {ours[0].weights.numel()} weights and {reference} {theirs[0].weights.numel()}: "
                "they do not do the same work"
            )
        return (ours[0].weights - theirs[0].weights).abs().max().item()


def take_blocks(
    names: Iterable[str],
    case: Case,
    *,
    threads: int = 1,
    blocks: int = 2,
    external: Mapping[str, Command] | None = None,
    report: Report = lambda line: None,
    keep: Callable[[Blocks], None] = lambda found: None,
) -> Blocks:
    """Run every row so many times, in turns; a row that fails is left out from then on.

    Parameters
    ----------
    external
        Row → command of somebody else's engine, see :mod:`benchmarks.child`.
    keep
        Called with everything there is after each process.
    """
    found = Blocks()
    with tempfile.TemporaryDirectory(prefix="fedunlearn-") as folder:
        for number in range(1, blocks + 1):
            for name in names:
                if name in found.missing:
                    continue
                report(f"{name}, process {number} of {blocks}")
                try:
                    block = run_block(name, case, Path(folder), threads, (external or {}).get(name))
                except (RunError, UserError) as error:
                    found.of.pop(name, None)
                    found.missing[name] = str(error)
                else:
                    found.of.setdefault(name, []).append(block)
                keep(found)
    return found


def run_block(
    name: str, case: Case, folder: Path, threads: int = 1, external: Command | None = None
) -> Block:
    """Run one row once; a RunError says why it gave no result."""
    if name == "flower":
        return _flower(case, folder, threads)
    if name == "command":
        return _command(case, folder)
    weights = folder / "weights.npy"
    weights.unlink(missing_ok=True)
    command = [
        *(external or (sys.executable, "-m", "benchmarks.child")),
        *(name, case.name, "--rounds", str(1 + case.block_rounds)),
        *("--threads", str(threads), "--weights", str(weights)),
    ]
    with launched(command, folder) as run:
        output = run.output()
    try:
        answer = json.loads(output.splitlines()[-1])
        return Block(
            seconds=answer["seconds"][1:],
            first_round=answer["first_round"] - run.began,
            peak_memory=run.memory.peak,
            serialised=answer.get("serialised"),
            weights=torch.from_numpy(np.load(weights)),
            note=answer.get("note", ""),
        )
    except (IndexError, KeyError, ValueError, OSError) as error:
        raise RunError(f"gave no result: {error!r}; its output ends with {output[-200:]!r}") from error


def _command(case: Case, folder: Path) -> Block:
    """Run ``fedunlearn run`` until the first round is in its log: what a user waits for."""
    path, out = folder / "command.toml", Path(tempfile.mkdtemp(dir=folder))
    path.write_text(case.toml(), encoding="utf-8")
    command = [sys.executable, "-m", "fedunlearn.cli", "run", str(path), "--out", str(out)]

    def first_round_done() -> bool:
        return any('"round": 1,' in log.read_text(encoding="utf-8") for log in out.glob("*/metrics.jsonl"))

    with launched(command, folder) as run:
        seconds = run.wait_until(first_round_done)
    return Block([], seconds, run.memory.peak)


def _flower(case: Case, folder: Path, threads: int) -> Block:
    path = None
    if not case.noop_floats:
        path = folder / "flower.toml"
        path.write_text(case.toml(), encoding="utf-8")
    found = stock_flower.run(
        FlowerCase(
            num_clients=case.num_clients,
            rounds=1 + case.block_rounds,
            experiment=path,
            noop_floats=case.noop_floats,
            workers=threads,
            seed=SEED,
        ),
        timeout=TIMEOUT,
    )
    return Block(
        seconds=found.seconds[1:],
        first_round=found.first_round,
        peak_memory=found.peak_memory,
        serialised=found.bytes_down + found.bytes_up,
        weights=found.weights,
    )
