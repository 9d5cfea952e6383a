"""Forget requests: the ledger that neither loses one nor applies one twice, and the table of their lives."""

from fedunlearn.requests.chain import Head, SignedHead
from fedunlearn.requests.intake import (
    Intake,
    InvalidRequestError,
    NotAllowedError,
    NotWithdrawableError,
    Receipt,
)
from fedunlearn.requests.lease import FencedError, Lease, LeaseHeldError, LeaseRecord, ServerRecord
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.quota import TooManyRequestsError
from fedunlearn.requests.records import (
    LIVE_BRANCH,
    NEVER_TOOK_PART,
    NOTHING_OF_IT,
    AuditEntry,
    Move,
    PlanRecord,
    RequestRecord,
)
from fedunlearn.requests.transitions import (
    ENDS,
    INITIAL,
    OPEN,
    STATES,
    TRANSITIONS,
    LedgerError,
    RequestConflictError,
    UnknownRequestError,
)

__all__ = [
    "ENDS",
    "INITIAL",
    "LIVE_BRANCH",
    "NEVER_TOOK_PART",
    "NOTHING_OF_IT",
    "OPEN",
    "STATES",
    "TRANSITIONS",
    "AuditEntry",
    "FencedError",
    "Head",
    "Intake",
    "InvalidRequestError",
    "Lease",
    "LeaseHeldError",
    "LeaseRecord",
    "Ledger",
    "LedgerError",
    "Move",
    "NotAllowedError",
    "NotWithdrawableError",
    "PlanRecord",
    "Receipt",
    "RequestConflictError",
    "RequestRecord",
    "ServerRecord",
    "SignedHead",
    "TooManyRequestsError",
    "UnknownRequestError",
]
