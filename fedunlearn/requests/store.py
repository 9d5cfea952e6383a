"""The SQLite file under the ledger: how it is opened, and the one way to write to it.

WAL lets others read and submit while the server writes; ``synchronous=FULL`` makes a commit survive a power
cut. Each outermost `Store.batch` costs one fsync, however much it writes.

Closing *any* other handle on the file makes the operating system drop the locks of this process's open ledger:
whoever wants its bytes (a backup, a check) takes them through SQLite or in another process.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedunlearn.requests import schema
from fedunlearn.requests.transitions import LedgerError

BUSY_SECONDS = 30.0


class Store:
    """One open ledger file; usable from several threads, one at a time.

    Parameters
    ----------
    place
        Path of the file (made if missing), or ":memory:".

    Attributes
    ----------
    file
        Path of the file wherever the process goes; None if there is none.
    fence
        Called at the beginning of every write transaction, where nobody else can write; what it raises ends the
        transaction before anything is written.

    Raises
    ------
    LedgerError
        The file cannot be opened, is no ledger, or is of another version.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.file = None if self.place == ":memory:" else Path(place).absolute()
        self.fence: Callable[[], None] | None = None
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = self._connect()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.place}: cannot be opened ({error}); does its folder exist?") from error
        self._identity = _identity(self.file)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise LedgerError(f"{self.place}: cannot be read as a ledger ({error})") from error
        except LedgerError:
            self._connection.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        return connect(self.place)

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._switch_to_wal()
        self._connection.execute("PRAGMA synchronous = FULL")
        if self._version() == schema.SCHEMA_VERSION:
            return
        with self.batch():  # a second opener waits here, then finds the tables made
            version = self._version()
            if version == 0:
                schema.create(self.rows)
            elif version != schema.SCHEMA_VERSION:
                raise LedgerError(
                    f"{self.place}: ledger version {version}; this fedunlearn reads version "
                    f"{schema.SCHEMA_VERSION}"
                )

    def _switch_to_wal(self) -> None:
        # Two processes that make one new file at once: SQLite tells one of them "busy" without the waiting
        # that it does for every other lock, so the waiting is done here.
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement and return all its rows."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise LedgerError(f"{self.place}: {error}") from error

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Run one statement and return its first row, or None."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that is written inside happen together or not at all.

        May be nested: only the outermost one commits, and an inner one that fails undoes its own part only.
        The write lock is taken at the start, so that what is read inside cannot change before the commit: above all
        not the lease, which `fence` looks at there.
        """
        with self._lock:
            name = f"level{self._depth}"
            outermost = self._depth == 0
            self.rows("BEGIN IMMEDIATE" if outermost else f"SAVEPOINT {name}")
            self._depth += 1
            try:
                if outermost and self.fence is not None:
                    self.fence()
                yield
                if outermost and not self.lies_where_opened():
                    raise LedgerError(
                        f"{self.place}: was removed or replaced meanwhile; nothing was recorded"
                    )
                self.rows("COMMIT" if outermost else f"RELEASE {name}")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    self.rows("ROLLBACK" if outermost else f"ROLLBACK TO {name}")
                    if not outermost:
                        self.rows(f"RELEASE {name}")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read several things as they were at one moment, without keeping anybody from writing.

        Within a `batch` it is that one's transaction; a `batch` within it is an error.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self.rows("BEGIN")
            try:
                yield
            finally:
                self.rows("COMMIT")

    def lies_where_opened(self) -> bool:
        """Whether the file still has its name: what is written to one that was removed or replaced is lost."""
        return self._identity is None or self._identity == _identity(self.file)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._connection.close()


def connect(place: str, *, uri: bool = False) -> sqlite3.Connection:
    """Return a connection on which no transaction begins but those of `Store.batch`."""
    return sqlite3.connect(
        place, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return device and inode of what lies at a path; None if nothing does."""
    try:
        status = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
