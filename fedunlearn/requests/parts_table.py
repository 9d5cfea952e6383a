"""Parts of clients' data in the ledger: each description has one number, from the first request that names it on.

The number is a part's name wherever clients are numbers (plans, checkpoints, the trail), and draws its rows where it
is a share: a description that is asked for again is the same part, with the same rows. Numbers are given out once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from fedunlearn.json_text import loads_object
from fedunlearn.parts import Part, Parts
from fedunlearn.requests.records import canonical_json
from fedunlearn.requests.store import Store


def number_of(store: Store, branch: str, part: Part, *, first: int) -> int:
    """Return the number of what a part describes, a new one if it has none; inside the caller's transaction.

    Parameters
    ----------
    part
        Its own number is not looked at.
    first
        The lowest number that a part may have: the number of clients.
    """
    what = _described(part)
    known = store.row(
        "SELECT number FROM parts WHERE branch = ? AND client = ? AND what = ?", branch, part.client, what
    )
    if known is not None:
        return int(known["number"])
    last = store.row("SELECT max(number) AS number FROM parts WHERE branch = ?", branch)
    number = first if last is None or last["number"] is None else int(last["number"]) + 1
    store.rows(
        "INSERT INTO parts (branch, number, client, what) VALUES (?, ?, ?, ?)",
        *(branch, number, part.client, what),
    )
    return number


def read(store: Store, branch: str) -> Parts:
    """Return all parts that a branch's requests have named."""
    return Parts(map(_part, store.rows("SELECT * FROM parts WHERE branch = ? ORDER BY number", branch)))


def count(store: Store, branch: str) -> int:
    """Return how many parts a branch's requests have named; they never become fewer, nor others.

    Their numbers have no gaps, so that the first and the last tell: counting them would cost more with every request.
    """
    row = store.row(
        "SELECT (SELECT max(number) FROM parts WHERE branch = ?) - (SELECT min(number) FROM parts WHERE branch = ?) "
        "AS span",
        *(branch, branch),
    )
    return 0 if row is None or row["span"] is None else int(row["span"]) + 1


def among(store: Store, branch: str, named: str) -> tuple[Part, ...]:
    """Return those parts whose numbers are in a JSON list, ascending."""
    sql = (
        "SELECT * FROM parts WHERE branch = ? AND number IN (SELECT value FROM json_each(?)) ORDER BY number"
    )
    return tuple(map(_part, store.rows(sql, branch, named)))


def put_back(store: Store, branch: str, exported: Iterable[dict[str, Any]]) -> None:
    """Write exported parts (:func:`exportable`) as they are, inside the caller's transaction."""
    for item in exported:
        part = Part.from_dict(item)
        store.rows(
            "INSERT INTO parts (branch, number, client, what) VALUES (?, ?, ?, ?)",
            *(branch, part.number, part.client, _described(part)),
        )


def exportable(store: Store, branch: str) -> list[dict[str, Any]]:
    """Return a branch's parts as JSON types, by number."""
    parts = read(store, branch)
    return [parts[number].to_dict() for number in parts]


def _described(part: Part) -> str:
    described = part.to_dict()
    return canonical_json({"classes": described["classes"], "samples": described["samples"]}, "part")


def _part(row: sqlite3.Row) -> Part:
    return Part.from_dict(
        {
            "number": row["number"],
            "client": row["client"],
            **loads_object(row["what"], f"part {row['number']}"),
        }
    )
