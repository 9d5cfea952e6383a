"""Plans of rounds: committed before anything is sent, and final from then on."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from fedunlearn.json_text import loads_object
from fedunlearn.requests.records import PlanRecord, canonical_json
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError


def insert(store: Store, branch: str, round: int, plan: Mapping[str, Any]) -> bool:
    """Write a plan and return True; return False when this very plan is there already.

    Raises
    ------
    LedgerError
        The round has another plan, or this one holds what JSON would change.
    """
    text = canonical_json(dict(plan))
    known = store.row("SELECT plan FROM plans WHERE branch = ? AND round = ?", branch, round)
    if known is None:
        store.rows("INSERT INTO plans (branch, round, plan) VALUES (?, ?, ?)", branch, round, text)
        return True
    if known["plan"] != text:
        raise LedgerError(
            f"round {round} of branch {branch!r} already has a different plan, and a plan is final"
        )
    return False


def answer(store: Store, branch: str, round: int, failed: Mapping[int, str], *, amend: bool = False) -> None:
    """Write which clients failed; the same ones again change nothing.

    Raises
    ------
    LedgerError
        The round has no plan, or other failures were recorded for it and they are not to be amended.
    """
    text = canonical_json({str(client): reason for client, reason in failed.items()}, "failed")
    row = store.row("SELECT failed FROM plans WHERE branch = ? AND round = ?", branch, round)
    if row is None:
        raise LedgerError(f"round {round} of branch {branch!r} has no plan: commit_plan comes first")
    if row["failed"] is None or (amend and row["failed"] != text):
        store.rows("UPDATE plans SET failed = ? WHERE branch = ? AND round = ?", text, branch, round)
    elif row["failed"] != text:
        raise LedgerError(
            f"round {round} of branch {branch!r} already has different failures recorded, and they are final"
        )


def read(store: Store, branch: str, round: int | None = None) -> list[PlanRecord]:
    """Return the plan of one round, or of all rounds in order."""
    where, values = ("", ()) if round is None else ("AND round = ?", (round,))
    rows = store.rows(f"SELECT * FROM plans WHERE branch = ? {where} ORDER BY round", branch, *values)
    return [_record(row) for row in rows]


def last_round(store: Store, branch: str) -> int:
    """Return the highest round that has a plan, or 0."""
    row = store.row("SELECT max(round) AS round FROM plans WHERE branch = ?", branch)
    return 0 if row is None or row["round"] is None else int(row["round"])


def _record(row: sqlite3.Row) -> PlanRecord:
    failed = {} if row["failed"] is None else loads_object(row["failed"], f"failures of round {row['round']}")
    return PlanRecord(
        round=row["round"],
        plan=loads_object(row["plan"], f"plan of round {row['round']}"),
        failed={client: failed[str(client)] for client in sorted(map(int, failed))},
        answered=row["failed"] is not None,
    )
