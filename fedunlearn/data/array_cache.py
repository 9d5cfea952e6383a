"""Arrays that took long to make, kept on disk under a key that says what they were made from.

An entry is a checksum and the arrays in the safetensors format. It is written beside its place and moved there, so
that a reader finds a whole entry or none; one that the disk has damaged does not match its checksum and counts as
missing. Nothing is ever overwritten with other numbers: what the numbers depend on is in the key.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fedunlearn.home import cache_home, path_in, why_temporary

CACHE_VARIABLE = "FEDUNLEARN_CACHE"
CHECKSUM = 32
"""Bytes at the head of an entry."""

Arrays = Mapping[str, npt.NDArray[Any]]


def arrays_folder() -> Path:
    """Return where arrays are kept: in ``$FEDUNLEARN_CACHE``, else in the user's folder for caches."""
    given = path_in(CACHE_VARIABLE)
    return given / "arrays" if given else cache_home() / "fedunlearn" / "arrays"


def why_not_kept() -> list[str]:
    """Return a line that says why arrays are kept for this process only; none where they are kept for the next."""
    why = "" if path_in(CACHE_VARIABLE) else why_temporary()
    return [why] if why else []


class ArrayCache:
    """Named arrays by key, in a folder that any number of processes share.

    Parameters
    ----------
    folder
        Made when the first entry is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the file of an entry; `key` is a hexadecimal digest."""
        return self.folder / key[:2] / f"{key}.arrays"

    def load(self, key: str) -> Arrays | None:
        """Return the arrays stored under a key; None if there are none, or if they are damaged."""
        import safetensors.numpy

        try:
            entry = self.path(key).read_bytes()
        except OSError:
            return None
        if entry[:CHECKSUM] != _checksum(memoryview(entry)[CHECKSUM:]):
            return None
        arrays: Arrays = safetensors.numpy.load(entry[CHECKSUM:])
        return arrays

    def store(self, key: str, arrays: Arrays) -> None:
        """Store arrays under a key; whoever comes last wins, and has stored the same.

        Raises
        ------
        OSError
            The folder cannot be written to, or is full.
        """
        import safetensors.numpy

        content: bytes = safetensors.numpy.save(dict(arrays))
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(content))
                file.write(content)
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


def _checksum(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM).digest()
