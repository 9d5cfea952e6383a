"""The one way to read and to write a text file: UTF-8 whatever the locale, and never half of it."""

from __future__ import annotations

from os import PathLike
from os.path import realpath
from pathlib import Path

from fedunlearn.durable import write_durably
from fedunlearn.errors import UserError


def read_text(path: str | PathLike[str]) -> str:
    """Return a file's text; a byte order mark in front is skipped.

    Raises
    ------
    UserError
        It is no text in UTF-8.
    OSError
        It cannot be read.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: must be a text file in UTF-8 (byte {error.start} is not)") from None


def resolved(path: Path) -> Path:
    """Return a path with its links followed; a link that leads to itself is left to whoever opens it."""
    return Path(realpath(path))  # Path.resolve raises a RuntimeError there, up to Python 3.12


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place, wait until it is on the disk, and move it there.

    A link is followed, and what is no file, such as a pipe, is written to as it stands.
    """
    content = text.encode("utf-8", "replace")
    target = resolved(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            file.write(content)
    else:
        write_durably(target, content)
