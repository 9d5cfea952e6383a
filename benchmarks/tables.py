"""The measurements as tables, for a terminal and in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from benchmarks import ratios
from benchmarks.cases import CASES
from benchmarks.goals import Verdict
from benchmarks.machine import in_words
from benchmarks.results import Check, Result, Results
from benchmarks.rows import KINDS, REFERENCE

HEADINGS = (
    *("case", "row", "s / round", "middle half", "over bare", "95 %"),
    *("start, s", "memory, MB", "serialised", "difference", "n"),
)
GOAL_HEADINGS = ("what", "measured", "95 %", "goal", "", "rows")
LEFT = {"case", "row", "what", "rows", "data", "method", "augmentation", "tuned settings"}
MARKS = {True: "✓", False: "✗", None: "–"}

Cells = tuple[str, ...]


def cells(result: Result, results: Results) -> Cells:
    """Return what stands under :data:`HEADINGS`."""
    over = results.over_bare(result) if result.row != REFERENCE else None
    return (
        _case_title(result),
        _row_title(result),
        number(result.median),
        _interval(ratios.spread(result.seconds)) if result.seconds else "",
        "" if over is None else number(over.value),
        "" if over is None else _interval((over.low, over.high)),
        f"{statistics.median(result.first_round):.1f}" if result.first_round else "",
        f"{statistics.median(result.peak_memory) / 1e6:.0f}" if result.peak_memory else "",
        "" if result.serialised is None else _bytes(result.serialised),
        "" if result.difference is None else f"{result.difference:.0e}" if result.difference else "0",
        str(len(result.seconds)) if result.seconds else "",
    )


def result_cells(results: Results, threads: int) -> list[Cells]:
    """Return the lines of the table for a number of threads; a case is named in its first line only."""
    lines: list[Cells] = []
    for case in [case for n, case in results.sections if n == threads]:
        for i, result in enumerate(results.of(case, threads)):
            line = cells(result, results)
            if result.missing:
                line = (*line[:2], f"n/a: {_first_line(result.missing)}", *line[3:])
            lines.append(("", *line[1:]) if i else line)
    return lines


def notes(results: Results, threads: int) -> list[str]:
    """Return what rows say of themselves, a line for each."""
    return [
        f"{_case_title(result)}, {_row_title(result)}: {result.note}"
        for case in [case for n, case in results.sections if n == threads]
        for result in results.of(case, threads)
        if result.note
    ]


def goal_lines(verdicts: Sequence[Verdict], results: Results) -> list[Cells]:
    """Return the lines of the table of goals: ratios, then what must simply hold."""
    return [*map(goal_cells, verdicts), *map(goal_cells, results.checks)]


def goal_cells(verdict: Verdict | Check) -> Cells:
    """Return what stands under :data:`GOAL_HEADINGS`."""
    if isinstance(verdict, Check):
        return (verdict.what, verdict.measured, "", verdict.goal, MARKS[verdict.met], "")
    found = verdict.ratio
    return (
        verdict.goal.what,
        "n/a" if found is None else number(found.value),
        "" if found is None else _interval((found.low, found.high)),
        verdict.goal.goal,
        MARKS[verdict.met],
        verdict.rows or verdict.why,
    )


def terminal(headings: Sequence[str], lines: Iterable[Cells]) -> Table:
    """Return a table for a terminal: cases as headlines, no quartiles, a line with a goal that is missed in red."""
    shown = [i for i, heading in enumerate(headings) if heading not in ("case", "middle half")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i in shown:
        left = headings[i] in LEFT
        table.add_column(headings[i], justify="left" if left else "right", no_wrap=not left)
    for line in lines:
        if headings[0] == "case" and line[0]:
            table.add_section()
            table.add_row(line[0], style="bold")
        cells = list(line)
        if cells[2].startswith("n/a: "):  # in Markdown a reason may be as long as it likes
            cells[1], cells[2] = f"{cells[1]} ({cells[2].removeprefix('n/a: ')})", "n/a"
        table.add_row(*(cells[i] for i in shown), style="red" if MARKS[False] in line else None)
    return table


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = tuple("---" if heading in LEFT else "---:" for heading in headings)
    escaped = (tuple(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (tuple(headings), rule, *escaped))


def document(results: Results, verdicts: Sequence[Verdict], command: str) -> str:
    """Return goals, all tables and the machine as Markdown."""
    parts = ["### Goals", markdown(GOAL_HEADINGS, goal_lines(verdicts, results))]
    for threads in sorted({threads for threads, _ in results.sections}):
        parts += [
            f"### {threads} thread{'s' if threads > 1 else ''} in total",
            markdown(HEADINGS, result_cells(results, threads)),
            "\n".join(f"- {note}" for note in notes(results, threads)),
        ]
    state = "" if results.complete else " The run was cut short: what is missing was not measured."
    parts.append(f"{in_words(results.machine)}. By `{command}`.{state}")
    return "\n\n".join(filter(None, parts))


def number(value: float | None) -> str:
    """Return a number with three significant digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _case_title(result: Result) -> str:
    return CASES[result.case].title if result.case in CASES else result.case


def _row_title(result: Result) -> str:
    kind, case = KINDS.get(result.row), CASES.get(result.case)
    if result.row == REFERENCE and case is not None and case.noop_floats:
        return "memcpys of the model"
    if kind is None:
        return result.row
    return kind.title.format(n=result.threads, b=case.batch_clients if case else "clients")


def _interval(interval: tuple[float, float]) -> str:
    return "–".join(map(number, interval))


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{number(size / factor)} {unit}"
    return str(size)


def _first_line(text: str) -> str:
    return text.splitlines()[0]
