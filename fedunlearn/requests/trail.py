"""The audit entries in the file: appended to the end of their branch's chain, and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable

from fedunlearn.requests.chain import GENESIS, Head, entry_hash
from fedunlearn.requests.records import AuditEntry, numbers_in
from fedunlearn.requests.transitions import INITIAL

Run = Callable[..., list[sqlite3.Row]]
"""Runs one statement with its values and returns its rows, as `Store.rows` does."""


def head(run: Run, branch: str) -> Head | None:
    """Return the branch's last entry, or None if it has none."""
    last = run("SELECT entry, hash FROM audit WHERE branch = ? ORDER BY entry DESC LIMIT 1", branch)
    return Head(last[0]["entry"], last[0]["hash"]) if last else None


def append(
    run: Run,
    branch: str,
    *,
    request_id: str,
    from_state: str | None,
    to_state: str,
    round: int | None,
    at: float,
    detail: str,
    clients: Iterable[int] | None = None,
    asked: str | None = None,
) -> Head:
    """Write one entry at the end of its branch, inside the caller's transaction; return the new head.

    Parameters
    ----------
    clients
        What the request asks for, in the entry of its arrival; None in others.
    asked
        There, too: see `records.asked_digest`.
    """
    last = head(run, branch)
    entry, before = (last.entry + 1, last.hash) if last is not None else (1, GENESIS)
    whom = None if clients is None else list(clients)
    at = float(at)
    digest = entry_hash(
        before,
        branch=branch,
        entry=entry,
        request_id=request_id,
        from_state=from_state,
        to_state=to_state,
        round=round,
        at=at,
        clients=whom,
        asked=asked,
    )
    run(
        "INSERT INTO audit (branch, entry, request_id, from_state, to_state, round, at, clients, detail, hash, "
        "asked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(branch, entry, request_id, from_state, to_state, round, at),
        *(None if whom is None else json.dumps(whom, separators=(",", ":")), detail, digest, asked),
    )
    return Head(entry, digest)


def arrival(run: Run, branch: str, request_id: str) -> Head:
    """Return where a request's arrival stands in the trail; the request must be there."""
    (row,) = run(
        "SELECT entry, hash FROM audit WHERE branch = ? AND request_id = ? AND to_state = ? AND from_state IS NULL",
        *(branch, request_id, INITIAL),
    )
    return Head(row["entry"], row["hash"])


def of_request(run: Run, branch: str, request_id: str) -> list[AuditEntry]:
    """Return the entries of one request by number."""
    sql = "SELECT * FROM audit INDEXED BY audit_of_request WHERE branch = ? AND request_id = ? ORDER BY entry"
    return [_entry(row) for row in run(sql, branch, request_id)]


def entries(run: Run, branch: str | None = None, *, after: int = 0) -> list[AuditEntry]:
    """Return the entries of one branch by number, from the one after `after`; or all in the order of writing."""
    if branch is None:
        rows = run("SELECT * FROM audit ORDER BY seq")
    else:
        rows = run("SELECT * FROM audit WHERE branch = ? AND entry > ? ORDER BY entry", branch, after)
    return [_entry(row) for row in rows]


def _entry(row: sqlite3.Row) -> AuditEntry:
    cells = dict(row)
    if cells["clients"] is not None:
        cells["clients"] = numbers_in(cells["clients"], f"clients of entry {row['entry']}")
    return AuditEntry(**cells)
