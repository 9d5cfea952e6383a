"""Where the command line writes: how wide, in which characters, and never with a line lost."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table

from fedunlearn.errors import one_line as one_line

WIDTH = 100
"""Columns where there is neither a terminal nor a $COLUMNS that makes sense."""

NARROWEST, WIDEST = 40, 9999
"""A table in fewer columns has no room for its words; nobody has more, and panels are filled up to the width."""

FOLDED = 12
"""The least width of a column whose words are folded."""

_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_REPLACING = "fedunlearn.replace"


def prepare() -> None:
    """Make the process fit to write: sizes that are none are forgotten, and no character stops a line.

    A character that the terminal's encoding lacks becomes "?". A byte of a file's name that is no text stays that
    byte, so that what is printed is the file's name.
    """
    _forget_bad_sizes()
    codecs.register_error(_REPLACING, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACING)


def console() -> Console:
    """Return the console: as wide as the terminal; where there is none $COLUMNS, or 100.

    What is printed is text: names and paths in it are neither markup nor emoji codes.
    """
    _forget_bad_sizes()
    found = Console(markup=False, emoji=False, highlight=False)
    if found.is_terminal:
        return found  # it follows the terminal when that is resized
    width = max(NARROWEST, int(os.environ.get("COLUMNS", WIDTH)))
    return Console(markup=False, emoji=False, highlight=False, width=width)


def show(console: Console, *shown: RenderableType) -> None:
    """Print tables, and text between them, so that no number in them is cut and no column is left out.

    Where a table needs more columns than the terminal has, it takes them, up to 100; more only where numbers do. The
    terminal then breaks its lines. Words that would make it wider than that are folded where they may be.
    """
    tables = [each for part in shown for each in _flat(part) if isinstance(each, Table)]
    options = console.options.update(width=WIDEST)
    needed = max((Measurement.get(console, options, table).minimum for table in tables), default=0)
    if console.width < min(needed, WIDTH):
        console = _of_width(min(needed, WIDTH), console)
    for table in tables:
        _fit(console, table)
    console.print(*shown, crop=False)


def _fit(console: Console, table: Table) -> None:
    """Fix the columns' widths of a table that is too wide: words stay whole, but those that may be folded."""
    options = console.options.update(width=WIDEST)
    whole = Measurement.get(console, options, table)
    if whole.maximum <= console.width:
        return
    sizes = [_sizes(console, column) for column in table.columns]
    around = whole.maximum - sum(size.maximum for size in sizes)
    folded = whole.minimum > console.width
    for column, size in zip(table.columns, sizes, strict=True):
        folds = folded and column.overflow == "fold"
        column.width = min(size.minimum, FOLDED) if folds else size.minimum
    room = console.width - around - sum(column.width or 0 for column in table.columns)
    lacking = [
        (size.maximum - (column.width or 0), column)
        for column, size in zip(table.columns, sizes, strict=True)
    ]
    for left, (lack, column) in enumerate(sorted(lacking, key=lambda each: each[0])):
        more = max(0, min(lack, room // (len(lacking) - left)))
        column.width = (column.width or 0) + more
        room -= more


def _sizes(console: Console, column: Column) -> Measurement:
    """Return how wide a column is with its words whole and with its lines whole, within its own bounds."""
    options = console.options.update(width=WIDEST)
    cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    least, most = max(cell.minimum for cell in cells), max(cell.maximum for cell in cells)
    return Measurement(most if column.no_wrap else least, most).clamp(column.min_width, column.max_width)


def _flat(shown: RenderableType) -> list[RenderableType]:
    return list(shown.renderables) if isinstance(shown, Group) else [shown]


def _of_width(width: int, like: Console) -> Console:
    return Console(
        file=like.file,
        force_terminal=like.is_terminal,
        markup=False,
        emoji=False,
        highlight=False,
        width=width,
    )


def say(console: Console, *lines: str) -> None:
    """Write lines as they are, neither wrapped nor cut nor styled: a receipt, a path, a next command.

    Raises
    ------
    OSError
        Standard output cannot be written to. The lines stand on standard error then.
    """
    text = "".join(f"{line}\n" for line in lines)
    if sys.stdout is None:  # closed by whoever started this
        print(text, end="", file=sys.stderr)
        return
    try:
        console.file.write(text)
        console.file.flush()
    except OSError as error:
        print(text, end="", file=sys.stderr)
        _abandon_stdout()
        error.filename = error.filename or "standard output"
        raise


def finish() -> None:
    """Write out what standard output still holds; OSError if it does not take it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _abandon_stdout()
        error.filename = error.filename or "standard output"
        raise


def shown(path: object) -> str:
    """Return a path as it can be copied: as it is, or with control characters in it as a shell's ``$'…'``."""
    text = str(path)
    if one_line(text) == text:
        return text
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{one_line(quoted)}'"


def _forget_bad_sizes() -> None:
    """Drop sizes from the environment that are no sizes: 0 loses every line, "²" is a number to nobody but rich."""
    for name in _SIZES:
        given = os.environ.get(name)
        if given is not None and re.fullmatch(r"0*[1-9][0-9]{0,3}", given) is None:
            del os.environ[name]


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return "?", error.start + 1


def _abandon_stdout() -> None:
    """Have nothing more written to standard output, not at the end of the process either."""
    with suppress(OSError, ValueError):  # where it is no file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
