"""Tables of the ledger that follow from others: what `verify` finds where they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.measures import STAGES
from fedunlearn.requests.records import LIVE_BRANCH, canonical_json
from fedunlearn.requests.schema import APPLIED, OVER, STILL_OPEN
from fedunlearn.requests.transitions import ENDS, INITIAL, LedgerError

TABLES = ("requests", "named", "parts", "keys", "plans", "audit", "heads", "seals", "measures")
_EXPECTED = (
    "SELECT r.id, value, CASE WHEN unlearned_round IS NOT NULL THEN ? "
    "WHEN state IN (SELECT value FROM json_each(?)) THEN ? ELSE ? END, arrival "
    "FROM requests AS r, json_each(r.clients) WHERE r.branch = ?"
)
_NAMED = "SELECT id, client, standing, arrival FROM named WHERE branch = ?"


def table_problems(ledger: Ledger, branch: str) -> list[str]:
    """Return what is wrong in the tables beside a federation's trail, one line each."""
    try:
        checks = (_order, _named, _keys, _measures, _parts)
        return [problem for check in checks for problem in check(ledger, branch)]
    except LedgerError as error:
        return [f"a row contains what fedunlearn never writes ({error})"]


def ill_typed(ledger: Ledger, branch: str) -> list[str]:
    """Return which columns hold values of another type than theirs, which SQLite itself does not keep out."""
    found = []
    for table in TABLES:
        for column in ledger.store.rows(f"PRAGMA table_info({table})"):
            name, kind = column["name"], column["type"].lower()
            sql = f"SELECT 1 FROM {table} WHERE branch = ? AND typeof({name}) NOT IN (?, 'null') LIMIT 1"
            if ledger.store.row(sql, branch, kind) is not None:
                found.append(f"a row of {table} has a {name} that fedunlearn never writes")
    return found


def strangers(ledger: Ledger) -> list[str]:
    """Return which tables hold rows of federations that have neither a request nor a plan, and what SQLite finds."""
    known, found = set(ledger.branches()), []
    for table in TABLES:
        rows = ledger.store.rows(f"SELECT DISTINCT branch FROM {table}")
        for name in sorted({str(row["branch"]) for row in rows} - known):
            found.append(f"{table}: has rows of federation {name!r}, which has neither requests nor plans")
    if LIVE_BRANCH in known:  # the one federation of a live run
        found += [
            f"federation {name!r}: does not belong to this run" for name in sorted(known - {LIVE_BRANCH})
        ]
    for row in ledger.store.rows("PRAGMA integrity_check(3)"):
        if row[0] != "ok":
            found.append(f"the file is damaged: {' '.join(str(row[0]).split())}")
    return found


def _order(ledger: Ledger, branch: str) -> Iterator[str]:
    """Requests are numbered in the order of their arrival, and an arrival's remark is where it came from."""
    rows = ledger.store.rows(
        "SELECT r.id, arrival, source, detail FROM requests AS r JOIN audit AS a ON a.branch = r.branch "
        "AND a.request_id = r.id AND from_state IS NULL AND to_state = ? WHERE r.branch = ? ORDER BY entry",
        *(INITIAL, branch),
    )
    for place, row in enumerate(rows, 1):
        if row["arrival"] != place:
            yield f"request {row['id']}: its arrival is {row['arrival']!r}, but {place} in the trail"
        if row["detail"] != row["source"]:
            yield (
                f"request {row['id']}: came by {row['source']!r}, but the remark on its arrival is "
                f"{row['detail']!r}"
            )


def _named(ledger: Ledger, branch: str) -> Iterator[str]:
    values = (APPLIED, json.dumps(sorted(ENDS)), OVER, STILL_OPEN, branch)
    lacks = ledger.store.rows(f"{_EXPECTED} EXCEPT {_NAMED}", *values, branch)
    holds = ledger.store.rows(f"{_NAMED} EXCEPT {_EXPECTED}", branch, *values)
    for id_ in sorted({str(row["id"]) for row in (*lacks, *holds)}):
        yield f"request {id_}: the index of clients named in requests contradicts the requests"


def _keys(ledger: Ledger, branch: str) -> Iterator[str]:
    rows = ledger.store.rows(
        "SELECT k.id FROM keys AS k LEFT JOIN requests AS r ON r.branch = k.branch AND r.id = k.id "
        "WHERE k.branch = ? AND (r.id IS NULL OR r.actor <> k.actor)",
        branch,
    )
    for row in rows:
        yield f"request {row['id']}: an idempotency key belongs to a missing request or to someone else's"


def _measures(ledger: Ledger, branch: str) -> Iterator[str]:
    rows = ledger.store.rows(
        "SELECT request_id, stage FROM measures AS m WHERE branch = ? AND (stage NOT IN (SELECT value FROM "
        "json_each(?)) OR NOT EXISTS (SELECT 1 FROM requests AS r WHERE r.branch = m.branch AND r.id = request_id))",
        *(branch, json.dumps(STAGES)),
    )
    for row in rows:
        yield f"request {row['request_id']}: measures of stage {row['stage']!r} belong to no known request or stage"


def _parts(ledger: Ledger, branch: str) -> Iterator[str]:
    used = {row["client"] for row in ledger.store.rows("SELECT client FROM named WHERE branch = ?", branch)}
    written = {
        row["number"]: row["what"]
        for row in ledger.store.rows("SELECT number, what FROM parts WHERE branch = ?", branch)
    }
    try:
        parts = ledger.parts(branch)
        for number in parts:
            described = parts[number].to_dict()
            what = {"classes": described["classes"], "samples": described["samples"]}
            if number not in used or canonical_json(what) != written[number]:
                yield f"part {number}: no request names it, or a ledger would write it differently"
    except (TypeError, ValueError, LookupError) as error:
        yield f"a row of parts contains what fedunlearn never writes ({error})"
