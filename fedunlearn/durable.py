"""Files that a crash leaves whole or not at all."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from fedunlearn.errors import naming

_LONGEST_NAME = 255
"""Bytes that a file's name may have."""


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    if len(os.fsencode(temporary.name)) > _LONGEST_NAME:
        temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.tmp")
    try:
        write_synced(temporary, content)
        move_durably(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_synced(path: Path, content: bytes, *, mode: int = 0o666, new: bool = False) -> None:
    """Write a file and return once its content is on the disk; its name need not be yet.

    Parameters
    ----------
    mode
        Permissions of a file that is made, less the umask. They are set when it is made: nobody can open it in
        between.
    new
        Refuse to overwrite.

    Raises
    ------
    FileExistsError
        With ``new``, there is one.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if new else os.O_TRUNC)
    with naming(path), os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def move_durably(temporary: Path, path: Path) -> None:
    """Give a file its name, in place of what had it."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return once the folder's names are on the disk."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
