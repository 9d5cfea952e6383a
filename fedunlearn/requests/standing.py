"""How requests stood when their trail had so many entries: what a certificate written then could know of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fedunlearn.requests.records import AuditEntry, RequestRecord
from fedunlearn.requests.transitions import ENDS


def standing(
    records: Iterable[RequestRecord], entries: Iterable[AuditEntry], last: int
) -> list[RequestRecord]:
    """Return the requests that had arrived by an entry of their trail, as they stood then, in the given order.

    Parameters
    ----------
    records
        Of one federation, as they stand now.
    entries
        Its trail by number, at least up to that entry.
    last
        The entry's number.
    """
    steps: dict[str, list[AuditEntry]] = {}
    for entry in entries:
        if entry.entry <= last:
            steps.setdefault(entry.request_id, []).append(entry)
    return [_after(record, steps[record.id]) for record in records if record.id in steps]


def _after(record: RequestRecord, steps: list[AuditEntry]) -> RequestRecord:
    unlearned, entered = None, None
    for step in steps:
        if step.to_state == "recovering":
            unlearned = entered
        # The round of an arrival is when a script had the request come, not one of a transition.
        entered = step.round if step.from_state is not None else None
    state = steps[-1].to_state
    return replace(
        record,
        state=state,
        state_round=entered,
        unlearned_round=unlearned,
        ended_round=entered if state in ENDS else None,
    )
