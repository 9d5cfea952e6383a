"""How fast the engines are, beside a bare PyTorch loop and stock Flower. One command, no network:

    python -m benchmarks.engines                                       # every case and row on one thread
    python -m benchmarks.engines --threads 1 --threads 2 --json runs/engines.json --write-docs
    python -m benchmarks.engines --case mlp-100 --row local --row batched --blocks 0     # seconds
    python -m benchmarks.engines --guard                               # fails if a ratio is worse than recorded

How it is measured, and what came out: docs/performance.md.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import docs, guard, tables
from benchmarks.cases import CASES
from benchmarks.goals import GOALS, Verdict, verdict
from benchmarks.killed import CASE, killed_worker
from benchmarks.launch import Command
from benchmarks.machine import machine
from benchmarks.measure import measure
from benchmarks.results import Result, Results
from benchmarks.rows import KINDS
from fedunlearn.errors import RunError, UserError

COMMAND = "python -m benchmarks.engines --threads 1 --threads 2 --write-docs"
console = Console(width=None if sys.stdout.isatty() else 120)


def main(
    case: Annotated[list[str] | None, typer.Option(help="Case by name; repeatable. Default: all.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Row by name; repeatable. Default: all.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="In total; repeatable. Default: 1.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many. Default: the case's.")] = None,
    blocks: Annotated[int, typer.Option(min=0, help="Processes of each row; 0: rows in turns only.")] = 2,
    external: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COMMAND", help="A row of somebody else's engine.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every second there.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what the JSON file holds.")] = False,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Write docs/performance.md.")] = False,
    check: Annotated[bool, typer.Option("--guard", help="Compare with recorded.json, quickly.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Rewrite recorded.json.")] = False,
) -> None:
    """Compare the engines with a bare PyTorch loop and stock Flower."""
    try:
        if record or check:
            _guard(record)
            return
        results = (
            Results.read(json_file) if resume and json_file and json_file.exists() else Results(machine())
        )
        ended_well = _measure(
            results,
            _known(case, CASES, "--case"),
            _known(row, KINDS, "--row"),
            threads or [1],
            rounds=rounds,
            blocks=blocks,
            external=dict(map(_external, external or ())),
            json_file=json_file,
        )
    except UserError as error:
        raise typer.BadParameter(str(error)) from None
    except RunError as error:
        _complain(error)
        raise typer.Exit(1) from None
    verdicts = [verdict(goal, results) for goal in GOALS]
    for number in sorted({n for n, _ in results.sections}):
        console.print(tables.terminal(tables.HEADINGS, tables.result_cells(results, number)))
        for note in tables.notes(results, number):
            console.print(note, highlight=False, soft_wrap=True)
    console.print(tables.terminal(tables.GOAL_HEADINGS, tables.goal_lines(verdicts, results)))
    if write_docs:
        docs.write(tables.document(results, verdicts, COMMAND))
    if not ended_well:
        raise typer.Exit(1)


def _measure(
    results: Results,
    cases: Collection[str],
    rows: Collection[str],
    threads: Iterable[int],
    *,
    rounds: int | None,
    blocks: int,
    external: dict[str, Command],
    json_file: Path | None,
) -> bool:
    """Measure case by case and say whether all went well; whatever was measured is in the file at any moment."""
    to_do = [(n, name) for n in threads for name in cases if (n, name) not in results.finished]
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
    )
    failed = False

    def keep(found: list[Result]) -> None:
        results.put(found)
        save(results, json_file)

    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(to_do))

        def report(what: str) -> None:
            progress.update(task, description=f"{CASES[name].title}, {n} thread(s): {what}")

        try:
            for n, name in to_do:
                chosen = CASES[name].shortened(rounds)
                results.cases[name] = chosen.to_dict()
                try:
                    keep(
                        measure(
                            chosen,
                            rows,
                            threads=n,
                            blocks=blocks,
                            external=external,
                            report=report,
                            keep=keep,
                        )
                    )
                except RunError as error:  # the others are none the worse for it
                    _complain(error, name)
                    failed = True
                else:
                    results.finished.append((n, name))
                progress.advance(task)
                if not console.is_terminal:
                    console.print(f"{name}, {n} thread(s): done")
            if blocks and "ray" in rows and CASE in cases and not results.checks:
                progress.update(task, description="killing a Ray worker")
                results.checks = [killed_worker()]
        except KeyboardInterrupt:
            console.print("interrupted: what follows is what was measured before")
            failed = True
        finally:
            save(results, json_file)
    return not failed


def _complain(error: RunError, case: str = "") -> None:
    console.print(
        f"failed: {case}: {error}" if case else f"failed: {error}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def save(results: Results, json_file: Path | None) -> None:
    """Write everything measured so far, with what it says of the goals."""
    if json_file is None:
        return
    verdicts: list[Verdict] = [verdict(goal, results) for goal in GOALS]
    content = results.to_dict() | {"goals": [v.to_dict() for v in verdicts]}
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _guard(record: bool) -> None:
    if record:
        found = guard.record()
        for (case, row), ratio in found.ratios.items():
            console.print(f"{case}, {row}: {ratio:.2f} × the bare loop", highlight=False)
        return
    on_record = guard.Record.read()
    if guard.check(on_record, report=lambda line: console.print(line, highlight=False, soft_wrap=True)):
        raise typer.Exit(1)


def _known(names: list[str] | None, known: Iterable[str], option: str) -> list[str]:
    """Return the names, or all there are; a UserError names one that is none."""
    if unknown := set(names or ()) - set(known):
        raise UserError(f"{option} {min(unknown)}: must be one of {', '.join(known)}")
    return [name for name in known if not names or name in names]


def _external(argument: str) -> tuple[str, Command]:
    name, _, command = argument.partition("=")
    if not name or not command or name in KINDS:
        raise UserError(f"--external {argument}: must be NAME=COMMAND, with a name of its own")
    return name, shlex.split(command)


if __name__ == "__main__":
    typer.run(main)
