"""Measure one case: first the rows that take turns in this process, then all rows in processes of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks import rows
from benchmarks.blocks import Blocks, take_blocks
from benchmarks.cases import Case
from benchmarks.launch import Command
from benchmarks.results import Result
from benchmarks.rows import KINDS, REFERENCE, Row, UnavailableError
from benchmarks.turns import Turns, take_turns

Report = Callable[[str], None]
FAST = ("batched", "auto")


def in_turns(
    case: Case, names: Collection[str], threads: int = 1, report: Report = lambda line: None
) -> tuple[Turns, dict[str, str], dict[str, Row]]:
    """Let rows take turns in this process.

    Returns
    -------
    tuple
        What was measured, row → why it was not, and the rows, which are closed.
    """
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedunlearn-")))
        made: dict[str, Row] = {}
        for name in [REFERENCE, *(n for n in names if n != REFERENCE)]:
            try:
                made[name] = rows.make(name, case, folder, threads)
            except UnavailableError as error:
                missing[name] = str(error)
            else:
                stack.callback(made[name].close)
        last = case.warm_up + case.rounds
        found = take_turns(
            made,
            rounds=case.rounds,
            warm_up=case.warm_up,
            tolerance={n: case.fast_tolerance if n in FAST else case.tolerance for n in made},
            report=lambda number: report(f"round {number} of {last}, {len(made)} rows in turns"),
        )
        return found, missing, made


def measure(
    case: Case,
    names: Collection[str],
    *,
    threads: int = 1,
    blocks: int = 2,
    external: Mapping[str, Command] | None = None,
    report: Report = lambda line: None,
    keep: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """Return the records of a case, one for each row that fits it, the bare loop's first.

    Parameters
    ----------
    names
        Rows wanted; the bare loop is always among them.
    blocks
        Processes of each row; 0: only rows that take turns.
    external
        Row → command of somebody else's engine.
    keep
        Called with the records, which are not complete yet, whenever there is more in them.
    """
    external = external or {}
    wanted = [n for n in KINDS if (n in names or n == REFERENCE) and KINDS[n].fits(case, threads)]
    results = {name: Result(case.name, name, threads) for name in [*wanted, *external]}

    def measured() -> list[Result]:
        return [r for r in results.values() if r.missing or r.seconds or r.first_round]

    def enter(found: Blocks) -> None:
        for name in found.of.keys() | found.missing.keys():
            _enter(results[name], found, case.drift)
        keep(measured())

    if case.rounds:
        _take_turns(case, [n for n in wanted if KINDS[n].in_turns], threads, results, report)
        keep(measured())
    if blocks:
        alone = [n for n in results if results[n].missing is None]
        take_blocks(alone, case, threads=threads, blocks=blocks, external=external, report=report, keep=enter)
    return measured()


def _take_turns(
    case: Case, names: Collection[str], threads: int, results: Mapping[str, Result], report: Report
) -> None:
    turns, missing, rows_of = in_turns(case, names, threads, report)
    for name in names:
        results[name].missing = missing.get(name)
    for name, seconds in turns.seconds.items():
        results[name].turns = seconds
        results[name].turns_difference = turns.difference[name]
        results[name].serialised = rows_of[name].serialised
        results[name].note = rows_of[name].note


def _enter(result: Result, found: Blocks, drift: float) -> None:
    """Complete a record with what processes of its own showed, unless they did other work."""
    difference = found.difference(result.row, REFERENCE)
    if difference is not None and not difference <= drift:
        found.missing[result.row] = f"ended in other weights than {REFERENCE}, by {difference:.1e}"
    if result.row in found.missing:
        if not result.turns:
            result.missing = found.missing[result.row]
        return
    blocks = found.of[result.row]
    result.blocks = [block.seconds for block in blocks if block.seconds]
    result.first_round = [block.first_round for block in blocks]
    result.peak_memory = [block.peak_memory for block in blocks if block.peak_memory is not None]
    result.blocks_difference = difference
    result.note = result.note or blocks[-1].note
    if blocks[-1].serialised is not None:
        result.serialised = blocks[-1].serialised
