"""Which rounds an unlearning took: as the plans have it, one or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fedunlearn.requests.records import AuditEntry, PlanRecord, RequestRecord


def first_of(last: int, plan_of: Callable[[int], PlanRecord | None]) -> int:
    """Return the first round of the unlearning that ended, well or not, with round ``last``.

    While one is under way every round is one of it, those included that were in vain.
    """
    first = last
    while (plan := plan_of(first)) is not None and plan.plan.get("step"):
        first -= 1
    return first


def rounds_of(last: int | None, plans: Iterable[PlanRecord]) -> list[PlanRecord]:
    """Return the plans of an unlearning that ended with round ``last``, in order; None: there was none."""
    if last is None:
        return []
    known = {plan.round: plan for plan in plans}
    return [known[round] for round in range(first_of(last, known.get), last + 1) if round in known]


def tried_last(record: RequestRecord, entries: Iterable[AuditEntry]) -> int | None:
    """Return the last round in which a request's unlearning was tried, if anything came of that.

    It was applied; or taken back by the guard; or it came to nothing, as there was nothing to forget.
    """
    *_, end = entries
    if record.unlearned_round is not None:
        return record.unlearned_round
    return record.ended_round if end.from_state == "unlearning" else None
