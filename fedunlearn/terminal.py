"""Where the command line writes: how wide, in which characters, and never with a line lost."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from contextlib import suppress

from rich.console import Console

from fedunlearn.errors import one_line as one_line

WIDTH = 100
"""Columns where there is neither a terminal nor a $COLUMNS that makes sense."""

NARROWEST, WIDEST = 40, 9999
"""A table in fewer columns has no room for its words; nobody has more, and panels are filled up to the width."""

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
