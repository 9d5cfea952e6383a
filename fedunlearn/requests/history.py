"""A branch's history as plain data: read from rows, written out as JSON types, and put back.

A branch that comes from the cache brings its requests, plans and audit entries along, times included.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.json_text import loads
from fedunlearn.parts import Part
from fedunlearn.requests import chain, parts_table, schema, trail
from fedunlearn.requests.records import RequestRecord, canonical_json, numbers_in
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError

# The columns exported: not the branch's name, and not what follows from it, as the hashes of its trail do.
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
        "arrived_at",
        "actor",
        "same_as",
    ),
    "plans": ("round", "plan", "failed"),
    "audit": ("request_id", "from_state", "to_state", "round", "at", "clients", "detail", "asked"),
}
_KEYS = {"requests": "id", "plans": "round", "audit": "entry"}
_ORDER = "at_round IS NULL, coalesce(at_round, arrival), id"
_JSON_COLUMNS = frozenset({"clients", "plan", "failed"})


def request_record(row: sqlite3.Row, parts: tuple[Part, ...] = ()) -> RequestRecord:
    """Read one row of the table of requests, of which some numbers stand for these parts."""
    return RequestRecord(
        id=row["id"],
        clients=numbers_in(row["clients"], f"clients of request {row['id']}"),
        at_round=row["at_round"],
        state=row["state"],
        unlearned_round=row["unlearned_round"],
        ended_round=row["ended_round"],
        state_round=row["state_round"],
        source=row["source"],
        arrival=row["arrival"],
        arrived_at=row["arrived_at"],
        actor=row["actor"],
        same_as=row["same_as"],
        parts=parts,
    )


def records(
    store: Store, branch: str, where: str = "", *values: Any, states: Sequence[str] | None = None
) -> list[RequestRecord]:
    """Return a branch's requests, scripted ones in the order of their rounds, then live ones as they came.

    Parameters
    ----------
    where, values
        Further conditions, in SQL that begins with AND.
    states
        Only those in these states: found without looking at the others, of which a long life leaves thousands.
    """
    index, within = "", ""
    if states is not None:
        index, within = "INDEXED BY requests_by_state", f"AND state IN ({', '.join('?' * len(states))})"
    sql = f"SELECT * FROM requests {index} WHERE branch = ? {within} {where} ORDER BY {_ORDER}"
    return with_parts(store, branch, store.rows(sql, branch, *(states or ()), *values))


def with_parts(store: Store, branch: str, rows: Sequence[sqlite3.Row]) -> list[RequestRecord]:
    """Return the requests of some rows, each with the parts of clients' data that it names."""
    if not rows or not parts_table.count(store, branch):
        return [request_record(row) for row in rows]
    return [request_record(row, parts_table.among(store, branch, row["clients"])) for row in rows]


def export(store: Store, branch: str) -> dict[str, Any]:
    """Return a branch as ``{"schema", "requests", "plans", "audit", "parts"}``, each a list of dicts."""
    exported: dict[str, Any] = {"schema": schema.SCHEMA_VERSION}
    for table, columns in _COLUMNS.items():
        rows = store.rows(f"SELECT * FROM {table} WHERE branch = ? ORDER BY {_KEYS[table]}", branch)
        exported[table] = [{column: _from_cell(column, row[column]) for column in columns} for row in rows]
    exported["parts"] = parts_table.exportable(store, branch)
    return exported


def replace(store: Store, branch: str, exported: Mapping[str, Any]) -> None:
    """Put an exported history in the place of whatever the branch holds; the caller opens the transaction.

    Raises
    ------
    LedgerError
        The export is of another version or lacks something.
    """
    if exported.get("schema") != schema.SCHEMA_VERSION:
        raise LedgerError(
            f"exported branch of version {exported.get('schema')!r}: this fedunlearn reads {schema.SCHEMA_VERSION}"
        )
    if store.row("SELECT 1 FROM heads WHERE branch = ?", branch) is not None:
        raise LedgerError(f"branch {branch!r}: its trail was signed and cannot be replaced")
    for table in (*_COLUMNS, "parts", "named", "keys", "measures"):
        store.rows(f"DELETE FROM {table} WHERE branch = ?", branch)
    try:
        for table in ("requests", "plans"):
            columns = _COLUMNS[table]
            sql = f"INSERT INTO {table} (branch, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})"
            for item in exported[table]:
                store.rows(sql, branch, *(_to_cell(column, item[column]) for column in columns))
        parts_table.put_back(store, branch, exported["parts"])
        for item in exported["audit"]:
            trail.append(store.rows, branch, **{column: item[column] for column in _COLUMNS["audit"]})
    except KeyError as error:
        raise LedgerError(f"exported branch lacks {error}: it is damaged") from error
    schema.index_clients(store.rows, branch)
    if wrong := chain.problems(trail.entries(store.rows, branch), records(store, branch)):
        raise LedgerError(f"exported branch is damaged: {wrong[0]}")


def _from_cell(column: str, cell: Any) -> Any:
    return loads(cell, column) if column in _JSON_COLUMNS and cell is not None else cell


def _to_cell(column: str, value: Any) -> Any:
    return canonical_json(value, column) if column in _JSON_COLUMNS and value is not None else value
