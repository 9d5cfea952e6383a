"""The SQLite file under the ledger: its tables, how it is opened, and the one way to write to it.

WAL lets others read and submit while the server writes; ``synchronous=FULL`` makes a commit survive a power
cut. Each outermost `Store.batch` costs one fsync, however much it writes.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedunlearn.requests.transitions import LedgerError

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

# AUTOINCREMENT: the number of a deleted audit entry is never given out again, so a gap stays visible.
_SCHEMA = """
CREATE TABLE requests (
    branch TEXT NOT NULL,
    id TEXT NOT NULL,
    clients TEXT NOT NULL,
    at_round INTEGER,
    source TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_round INTEGER,
    unlearned_round INTEGER,
    ended_round INTEGER,
    PRIMARY KEY (branch, id)
) WITHOUT ROWID;
CREATE TABLE plans (
    branch TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan TEXT NOT NULL,
    failed TEXT,
    PRIMARY KEY (branch, round)
) WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    branch TEXT NOT NULL,
    request_id TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    round INTEGER,
    at REAL NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_of_request ON audit (branch, request_id, to_state, round);
"""


class Store:
    """One open ledger file; usable from several threads, one at a time.

    Parameters
    ----------
    place
        Path of the file (made if missing), or ":memory:".

    Raises
    ------
    LedgerError
        The file cannot be opened, is no ledger, or comes from a newer version.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._lock = threading.RLock()
        self._depth = 0
        try:
            # isolation_level=None: no transaction but the ones `batch` begins.
            self._connection = sqlite3.connect(
                self.place, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise LedgerError(f"{self.place}: cannot be opened ({error}); does its folder exist?") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise LedgerError(f"{self.place}: cannot be read as a ledger ({error})") from error
        except LedgerError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._switch_to_wal()
        self._connection.execute("PRAGMA synchronous = FULL")
        if self._version() == SCHEMA_VERSION:
            return
        with self.batch():  # a second opener waits here, then finds the tables made
            version = self._version()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise LedgerError(
                    f"{self.place}: ledger version {version}; this fedunlearn reads version {SCHEMA_VERSION}"
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
        The write lock is taken at the start, so that what is read inside cannot change before the commit.
        """
        with self._lock:
            name = f"level{self._depth}"
            outermost = self._depth == 0
            self.rows("BEGIN IMMEDIATE" if outermost else f"SAVEPOINT {name}")
            self._depth += 1
            try:
                yield
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

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._connection.close()
