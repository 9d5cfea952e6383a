"""How a request changes state: check the table, write the new state, append the audit entry."""

from fedunlearn.requests.history import request_record
from fedunlearn.requests.records import Move, RequestRecord
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import ENDS, LedgerError, is_legal


def find(store: Store, branch: str, request_id: str) -> RequestRecord | None:
    """Return one request, or None."""
    row = store.row("SELECT * FROM requests WHERE branch = ? AND id = ?", branch, request_id)
    return None if row is None else request_record(row)


def get(store: Store, branch: str, request_id: str) -> RequestRecord:
    """Return one request; an unknown one raises LedgerError."""
    record = find(store, branch, request_id)
    if record is None:
        raise LedgerError(f"request {request_id!r} is not in the ledger of branch {branch!r}")
    return record


def move(store: Store, branch: str, step: Move, at: float) -> None:
    """Make one transition, inside the caller's transaction.

    A transition that the trail already has (same request, state and round) changes nothing: a round that is
    executed again after a crash makes its transitions again.

    Parameters
    ----------
    at
        Unix seconds, for the audit entry.

    Raises
    ------
    LedgerError
        The request is unknown, or the table forbids the step.
    """
    record = get(store, branch, step.request_id)
    done = "SELECT 1 FROM audit WHERE branch = ? AND request_id = ? AND to_state = ? AND round = ?"
    if store.row(done, branch, step.request_id, step.to, step.round) is not None:
        return
    if not is_legal(record.state, step.to):
        raise LedgerError(
            f"request {record.id!r} of branch {branch!r} cannot go from {record.state!r} to {step.to!r}"
        )
    # That an unlearning round was applied to the weights is known only when recovery begins.
    unlearned = record.state_round if step.to == "recovering" else record.unlearned_round
    ended = step.round if step.to in ENDS else None
    store.rows(
        "UPDATE requests SET state = ?, state_round = ?, unlearned_round = ?, ended_round = ? "
        "WHERE branch = ? AND id = ?",
        *(step.to, step.round, unlearned, ended, branch, record.id),
    )
    append(store, branch, step, record.state, at)


def append(store: Store, branch: str, step: Move, before: str | None, at: float) -> None:
    """Write one audit entry; `before` is None for a submission."""
    store.rows(
        "INSERT INTO audit (branch, request_id, from_state, to_state, round, at, detail) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(branch, step.request_id, before, step.to, step.round, at, step.detail),
    )
