"""A ledger's file opened by who only reads: nothing is written to it or beside it, and the folder may be read-only.

SQLite itself keeps a write-ahead log and an index of it beside a file in WAL mode, and makes them for readers, too.
Where both are there (a server works, or was killed), they are read as they are. A log without its index is read in a
copy. Without a log the file stands alone, and is read as one that does not change; that it did not is looked at.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedunlearn.requests import schema
from fedunlearn.requests.store import Store, connect
from fedunlearn.requests.transitions import LedgerError


class ReadOnlyStore(Store):
    """One ledger file that is there already; whatever would write to it raises LedgerError.

    Raises
    ------
    LedgerError
        It cannot be read, is no ledger, or is of another version. From a read: a server that had not been there
        began to write meanwhile; read again.
    """

    def __init__(self, place: str | Path) -> None:
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._stamp: tuple[int, int] | None = None
        try:
            super().__init__(place)
        except BaseException:
            self._discard()
            raise

    def _connect(self) -> sqlite3.Connection:
        file = Path(self.place)
        try:
            log = _beside(file, "-wal")
            if log.exists() and _beside(file, "-shm").exists():
                return connect(_address(file, "mode=ro"), uri=True)
            if log.exists() and log.stat().st_size:
                self._copy = tempfile.TemporaryDirectory(prefix="fedunlearn-")
                copied = Path(self._copy.name) / file.name
                shutil.copyfile(file, copied)
                shutil.copyfile(log, _beside(copied, "-wal"))
                return connect(_address(copied, "mode=rw"), uri=True)
            self._stamp = _stamp(file)
        except OSError as error:
            raise LedgerError(f"{self.place}: cannot be read ({error.strerror})") from error
        return connect(_address(file, "mode=ro&immutable=1"), uri=True)

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        version = self._version()
        self._connection.execute("PRAGMA query_only = ON")
        if version == 0:
            raise LedgerError(f"{self.place}: is not a ledger")
        if version != schema.SCHEMA_VERSION:
            raise LedgerError(
                f"{self.place}: ledger version {version}; this fedunlearn reads version {schema.SCHEMA_VERSION}"
            )

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement and return all its rows."""
        try:
            found = super().rows(sql, *values)
        finally:
            if self._stamp is not None and self._stamp != _stamp(Path(self.place)):
                raise LedgerError(f"{self.place}: a server started writing to it meanwhile; read it again")
        return found

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        super().close()
        self._discard()

    def _discard(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _address(file: Path, how: str) -> str:
    return f"file:{quote(os.fsencode(file.absolute()))}?{how}"


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size
