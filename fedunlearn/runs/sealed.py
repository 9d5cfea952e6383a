"""JSON documents and files that are as they were written, or count as missing: their SHA-256 is kept with them."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedunlearn import json_text
from fedunlearn.durable import write_durably


def write_sealed(path: Path, content: Any) -> None:
    """Write a JSON document durably, after a line with its SHA-256."""
    text = json.dumps(content).encode()
    write_durably(path, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def read_sealed(path: Path) -> Any | None:
    """Return a document that :func:`write_sealed` wrote; None where there is none, or another."""
    if not _is_file(path):
        return None
    try:
        seal, _, text = path.read_bytes().partition(b"\n")
        if seal.decode() != hashlib.sha256(text).hexdigest():
            return None
        return json_text.loads(text, path, allow_nan=True)
    except (OSError, ValueError):
        return None


def hash_of(path: Path) -> str | None:
    """Return the SHA-256 of a file, in hexadecimal; None of what is no file of its own, or cannot be read."""
    if not _is_file(path):
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def are_as_noted(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Return whether every file of a folder that has a hash noted still has it."""
    return all(hash_of(folder / name) == noted for name, noted in hashes.items())


def discard(path: Path) -> None:
    """Remove a damaged file, folder or link, so that a whole one can take its place; as far as that is allowed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)  # no link: what it leads to is another's to change
    except OSError:
        return False
