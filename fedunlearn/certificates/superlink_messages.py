"""The SuperLink's database: remove a federation's messages of finished rounds, also from free pages and the log.

Flower's SuperLink, started with ``--database FILE``, keeps messages in SQLite: their envelopes in ``message_ins``
and ``message_res``, their contents in ``objects``. A message that was received is deleted there, but one that was
not (its node or the ServerApp died, the round timed out) stays; and what SQLite deletes stays in free pages of the
file and in its write-ahead log until something else is written over it. So: delete the rows of this federation's
runs, rebuild the file (VACUUM), and write the log back and cut it to nothing.

Written for the tables of Flower 1.41 (``flwr/supercore/state/schema``); a database that lacks them is left alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

UNDER_WAY = ("query",)
"""Types of messages that may be under way at any time: a node is asked which client it serves."""

_NEEDED = frozenset({"message_ins", "message_res", "objects", "object_children", "run_objects"})


@dataclass(frozen=True)
class MessagePurge:
    """What a purge did.

    Attributes
    ----------
    messages, objects : int
        Envelopes and contents that were still there and were deleted.
    problem : str or None
        Why it is not known that nothing is left; None if it is.
    """

    messages: int = 0
    objects: int = 0
    problem: str | None = None


def purge_messages(database: Path, runs: Collection[int], *, wait: float = 5.0) -> MessagePurge:
    """Delete all messages of these Flower runs, and every trace of deleted ones in the file and its log.

    To be called between two rounds, when no weights are under way: what is there then is left over, and a node
    that is late with its answer finds it no longer wanted. Other runs' messages stay, and so do questions of the
    types in :data:`UNDER_WAY`, which nobody waits for and which carry nothing of anybody's data.

    Parameters
    ----------
    database
        The file given to ``flower-superlink --database``. The SuperLink may be running.
    runs
        Flower's run ids, as unsigned 64-bit numbers.
    wait
        Seconds to wait for others to let go of the file.
    """
    if not database.is_file():
        return MessagePurge(problem=f"{database}: there is no such file")
    messages = objects = 0
    try:
        place = f"{database.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(place, uri=True, timeout=wait, isolation_level=None)) as connection:
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            if lacking := _NEEDED - tables:
                return MessagePurge(
                    problem=f"{database}: is not a known SuperLink database, it lacks {min(lacking)}"
                )
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            try:
                messages, objects = _delete(connection, tables, {_signed(run) for run in runs})
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("VACUUM")
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except (sqlite3.Error, OSError) as error:
        return MessagePurge(messages, objects, f"{database}: {error}")
    if busy:
        return MessagePurge(
            messages, objects, f"{database}: its write-ahead log was in use and has not been emptied yet"
        )
    return MessagePurge(messages, objects)


def _delete(connection: sqlite3.Connection, tables: set[str], runs: set[int]) -> tuple[int, int]:
    """Delete the runs' messages, and their contents where no other run holds them; return how many."""
    connection.execute("CREATE TEMP TABLE ours (run_id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO ours VALUES (?)", [(run,) for run in sorted(runs)])
    of_ours = "run_id IN (SELECT run_id FROM ours)"
    spared = f"message_type IN ({', '.join('?' * len(UNDER_WAY))})"
    messages = 0
    for table in ("message_res", "message_ins"):
        sql = f"DELETE FROM {table} WHERE {of_ours} AND NOT {spared}"
        messages += connection.execute(sql, UNDER_WAY).rowcount
    connection.execute("CREATE TEMP TABLE spared (object_id TEXT PRIMARY KEY)")
    connection.execute(
        f"WITH RECURSIVE parts (id) AS (SELECT message_id FROM message_ins WHERE {of_ours} "
        f"UNION SELECT message_id FROM message_res WHERE {of_ours} "
        "UNION SELECT child_id FROM object_children JOIN parts ON parent_id = id) "
        "INSERT INTO spared SELECT id FROM parts WHERE id IS NOT NULL"
    )
    if "task_message" in tables:
        connection.execute(f"DELETE FROM task_message WHERE {of_ours}")
    if {"object_push_sessions", "object_push_session_roots"} <= tables:
        connection.execute(
            f"DELETE FROM object_push_sessions WHERE {of_ours} AND session_id NOT IN (SELECT session_id "
            "FROM object_push_session_roots WHERE root_object_id IN (SELECT object_id FROM spared))"
        )
    loose = f"{of_ours} AND object_id NOT IN (SELECT object_id FROM spared)"
    connection.execute(f"CREATE TEMP TABLE loose AS SELECT DISTINCT object_id FROM run_objects WHERE {loose}")
    connection.execute(f"DELETE FROM run_objects WHERE {loose}")
    objects = 0
    while True:
        # From the roots down: a content that some other message is made of stays, as Flower's counting has it.
        free = connection.execute(
            "SELECT object_id FROM objects WHERE object_id IN (SELECT object_id FROM loose) "
            "AND object_id NOT IN (SELECT object_id FROM run_objects) "
            "AND object_id NOT IN (SELECT child_id FROM object_children)"
        ).fetchall()
        if not free:
            break
        connection.executemany(
            "UPDATE objects SET ref_count = ref_count - 1 WHERE ref_count > 0 "
            "AND object_id IN (SELECT child_id FROM object_children WHERE parent_id = ?)",
            free,
        )
        connection.executemany("DELETE FROM object_children WHERE parent_id = ?", free)
        connection.executemany("DELETE FROM objects WHERE object_id = ?", free)
        objects += len(free)
    for table in ("loose", "spared", "ours"):
        connection.execute(f"DROP TABLE temp.{table}")
    return messages, objects


def _signed(run: int) -> int:
    """Return the signed 64-bit number that stands for an unsigned one, as SQLite stores it."""
    return run - (1 << 64) if run >= 1 << 63 else run
