"""Requests a page at a time, in order of arrival: a page costs what it shows, however many requests there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedunlearn.requests.history import with_parts
from fedunlearn.requests.records import RequestRecord
from fedunlearn.requests.store import Store

OWN_NUMBERS = "SELECT ? UNION ALL SELECT number FROM parts WHERE branch = ? AND client = ?"
"""The numbers that stand for one client (client, branch, client): its own, and those of parts of its data."""

_NAMING_IT_ALONE = f"""
AND id IN (SELECT id FROM named WHERE branch = ? AND client IN ({OWN_NUMBERS}))
AND NOT EXISTS (SELECT 1 FROM json_each(clients) WHERE value NOT IN ({OWN_NUMBERS}))
"""


def page(
    store: Store,
    branch: str,
    *,
    states: Sequence[str] | None = None,
    client: int | None = None,
    after: int = 0,
    limit: int,
) -> list[RequestRecord]:
    """Return the next requests of a branch by arrival.

    Parameters
    ----------
    states
        Only those in these states; None: in any.
    client
        Only those that name this client, or parts of its data, and nobody else; None: all.
    after
        Only those that arrived after the one with this place (:attr:`RequestRecord.arrival`).
    limit
        How many at most.
    """
    alone = ""
    own: tuple[Any, ...] = ()
    if client is not None:
        numbers = (client, branch, client)
        alone, own = _NAMING_IT_ALONE, (branch, *numbers, *numbers)
    rows = [
        row
        for state in ([None] if states is None else dict.fromkeys(states))
        for row in _rows(store, branch, state, after, alone, own, limit)
    ]
    rows.sort(key=lambda row: row["arrival"])
    return with_parts(store, branch, rows[:limit])


def _rows(
    store: Store, branch: str, state: str | None, after: int, alone: str, own: Sequence[Any], limit: int
) -> list[Any]:
    # Of one state, each index leads straight to the next ones; SQLite would sort all there are of several. A client's
    # own are looked up one by one: the + keeps SQLite from going through everybody's in order of arrival.
    index = "" if alone else f"INDEXED BY requests_by_{'arrival' if state is None else 'state'}"
    plus = "+" if alone else ""
    within, values = ("", ()) if state is None else (f"AND {plus}state = ?", (state,))
    sql = (
        f"SELECT * FROM requests {index} WHERE branch = ? {within} AND {plus}arrival > ? {alone} "
        f"ORDER BY {plus}arrival LIMIT ?"
    )
    return store.rows(sql, branch, *values, after, *own, limit)


def named(store: Store, branch: str, state: str) -> frozenset[int]:
    """Return the numbers of clients, and of parts of their data, that requests in a state name."""
    sql = (
        "SELECT DISTINCT value FROM requests INDEXED BY requests_by_state, json_each(clients) "
        "WHERE branch = ? AND state = ?"
    )
    return frozenset(int(row["value"]) for row in store.rows(sql, branch, state))


def oldest_arrival(store: Store, branch: str, states: Sequence[str]) -> float | None:
    """Return when the earliest request that is in one of these states was recorded, in Unix seconds."""
    first = page(store, branch, states=states, limit=1)
    return first[0].arrived_at if first else None
