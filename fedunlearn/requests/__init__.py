"""Forget requests: the ledger that neither loses one nor applies one twice, and the table of their lives."""

from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import AuditEntry, Move, PlanRecord, RequestRecord
from fedunlearn.requests.transitions import (
    ENDS,
    INITIAL,
    STATES,
    TRANSITIONS,
    LedgerError,
    RequestConflictError,
)

__all__ = [
    "ENDS",
    "INITIAL",
    "STATES",
    "TRANSITIONS",
    "AuditEntry",
    "Ledger",
    "LedgerError",
    "Move",
    "PlanRecord",
    "RequestConflictError",
    "RequestRecord",
]
