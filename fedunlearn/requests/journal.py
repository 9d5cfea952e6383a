"""How a request arrives and changes state: check the table, write the new state, append the audit entry."""

from __future__ import annotations

from collections.abc import Sequence

from fedunlearn.parts import Part
from fedunlearn.requests import parts_table, trail
from fedunlearn.requests.chain import Head
from fedunlearn.requests.history import request_record
from fedunlearn.requests.records import Move, RequestRecord, asked_digest, canonical_json
from fedunlearn.requests.schema import APPLIED, OVER, STILL_OPEN
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import ENDS, INITIAL, LedgerError, UnknownRequestError, is_legal


def find(store: Store, branch: str, request_id: str) -> RequestRecord | None:
    """Return one request, or None."""
    row = store.row("SELECT * FROM requests WHERE branch = ? AND id = ?", branch, request_id)
    return None if row is None else request_record(row, parts_table.among(store, branch, row["clients"]))


def get(store: Store, branch: str, request_id: str) -> RequestRecord:
    """Return one request; an unknown one raises UnknownRequestError."""
    record = find(store, branch, request_id)
    if record is None:
        raise UnknownRequestError(f"request {request_id!r} is not in the ledger of branch {branch!r}")
    return record


def arrive(
    store: Store,
    branch: str,
    request_id: str,
    clients: Sequence[int],
    at: float,
    *,
    at_round: int | None = None,
    source: str,
    actor: str = "",
    same_as: str | None = None,
    parts: Sequence[Part] = (),
) -> Head:
    """Record a new request, inside the caller's transaction.

    Parameters
    ----------
    clients
        Ascending, each once: clients, or parts of clients' data.
    at
        Unix seconds.
    parts
        What the numbers of parts stand for; they are in the ledger already.

    Returns
    -------
    Head
        Where its arrival stands in the trail.
    """
    last = store.row("SELECT max(arrival) AS arrival FROM requests WHERE branch = ?", branch)
    arrival = 1 + (last["arrival"] or 0 if last else 0)
    store.rows(
        "INSERT INTO requests (branch, id, clients, at_round, source, arrival, state, arrived_at, actor, same_as) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(branch, request_id, canonical_json(list(clients), "clients"), at_round, source, arrival),
        *(INITIAL, at, actor, same_as),
    )
    for client in clients:
        store.rows(
            "INSERT INTO named (branch, client, standing, arrival, id) VALUES (?, ?, ?, ?, ?)",
            *(branch, client, STILL_OPEN, arrival, request_id),
        )
    return trail.append(
        store.rows,
        branch,
        request_id=request_id,
        from_state=None,
        to_state=INITIAL,
        round=at_round,
        at=at,
        detail=source,
        clients=clients,
        asked=asked_digest(actor=actor, source=source, same_as=same_as, parts=parts),
    )


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
    if step.to == "recovering" or (step.to in ENDS and unlearned is None):
        for client in record.clients:
            store.rows(
                "UPDATE named SET standing = ? WHERE branch = ? AND client = ? AND standing = ? AND arrival = ?",
                *(OVER if step.to in ENDS else APPLIED, branch, client, STILL_OPEN, record.arrival),
            )
    trail.append(
        store.rows,
        branch,
        request_id=record.id,
        from_state=record.state,
        to_state=step.to,
        round=step.round,
        at=at,
        detail=step.detail,
    )
