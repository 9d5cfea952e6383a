"""What was measured of a request's forgetting: JSON documents beside the trail, one for each stage."""

from collections.abc import Mapping
from typing import Any

from fedunlearn.json_text import loads_object
from fedunlearn.requests import journal
from fedunlearn.requests.records import canonical_json
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError

# The last two are the clerk's notes: hashes of weights whose files may be put away, and what was put away.
STAGES = ("before", "unlearned", "ended", "weights", "retention")


def note(store: Store, branch: str, request_id: str, stage: str, document: Mapping[str, Any]) -> None:
    """Write a stage's document in the place of an earlier one, inside the caller's transaction.

    Raises
    ------
    LedgerError
        The request or the stage is unknown, or JSON would change the document.
    """
    if stage not in STAGES:
        raise LedgerError(f"measures of stage {stage!r}: must be one of {', '.join(STAGES)}")
    journal.get(store, branch, request_id)
    text = canonical_json(dict(document), stage)
    sql = "SELECT 1 FROM measures WHERE branch = ? AND request_id = ? AND stage = ? AND document = ?"
    if store.row(sql, branch, request_id, stage, text) is None:
        store.rows(
            "INSERT OR REPLACE INTO measures (branch, request_id, stage, document) VALUES (?, ?, ?, ?)",
            *(branch, request_id, stage, text),
        )


def read(store: Store, branch: str, request_id: str) -> dict[str, dict[str, Any]]:
    """Return a request's documents by stage, in the order of `STAGES`, those that there are."""
    rows = store.rows("SELECT * FROM measures WHERE branch = ? AND request_id = ?", branch, request_id)
    found = {row["stage"]: loads_object(row["document"], f"measures of request {request_id}") for row in rows}
    return {stage: found[stage] for stage in STAGES if stage in found}
