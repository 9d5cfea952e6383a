"""A branch's history as plain data: read from rows, written out as JSON types, and put back.

A branch that comes from the cache brings its requests, plans and audit entries along, times included.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from fedunlearn.requests.records import RequestRecord, canonical_json
from fedunlearn.requests.store import SCHEMA_VERSION, Store
from fedunlearn.requests.transitions import LedgerError

# The columns exported: not the branch's name, and not the audit entries' numbers, which are the file's.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "requests": (
        "id",
        "clients",
        "at_round",
        "source",
        "arrival",
        "state",
        "state_round",
        "unlearned_round",
        "ended_round",
    ),
    "plans": ("round", "plan", "failed"),
    "audit": ("request_id", "from_state", "to_state", "round", "at", "detail"),
}
_KEYS = {"requests": "id", "plans": "round", "audit": "seq"}
_JSON_COLUMNS = frozenset({"clients", "plan", "failed"})


def request_record(row: sqlite3.Row) -> RequestRecord:
    """Read one row of the table of requests."""
    return RequestRecord(
        id=row["id"],
        clients=tuple(json.loads(row["clients"])),
        at_round=row["at_round"],
        state=row["state"],
        unlearned_round=row["unlearned_round"],
        ended_round=row["ended_round"],
        state_round=row["state_round"],
        source=row["source"],
        arrival=row["arrival"],
    )


def export(store: Store, branch: str) -> dict[str, Any]:
    """Return a branch as ``{"schema", "requests", "plans", "audit"}``, each a list of dicts by column."""
    exported: dict[str, Any] = {"schema": SCHEMA_VERSION}
    for table, columns in _COLUMNS.items():
        rows = store.rows(f"SELECT * FROM {table} WHERE branch = ? ORDER BY {_KEYS[table]}", branch)
        exported[table] = [{column: _from_cell(column, row[column]) for column in columns} for row in rows]
    return exported


def replace(store: Store, branch: str, exported: Mapping[str, Any]) -> None:
    """Put an exported history in the place of whatever the branch holds; the caller opens the transaction.

    Raises
    ------
    LedgerError
        The export is of another version or lacks something.
    """
    if exported.get("schema") != SCHEMA_VERSION:
        raise LedgerError(
            f"exported branch of version {exported.get('schema')!r}: this fedunlearn reads {SCHEMA_VERSION}"
        )
    for table, columns in _COLUMNS.items():
        store.rows(f"DELETE FROM {table} WHERE branch = ?", branch)
        sql = f"INSERT INTO {table} (branch, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})"
        try:
            for item in exported[table]:
                store.rows(sql, branch, *(_to_cell(column, item[column]) for column in columns))
        except KeyError as error:
            raise LedgerError(f"exported branch lacks {error} in {table!r}: it is damaged") from error


def _from_cell(column: str, cell: Any) -> Any:
    return json.loads(cell) if column in _JSON_COLUMNS and cell is not None else cell


def _to_cell(column: str, value: Any) -> Any:
    return canonical_json(value, column) if column in _JSON_COLUMNS and value is not None else value
