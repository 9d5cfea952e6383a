"""Live requests: how they are taken in at the command line and at the door, and taken back.

Each call is one transaction: killed at any moment, a request is recorded wholly or not at all, and what was
acknowledged is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from fedunlearn.errors import UserError
from fedunlearn.requests import journal, plans, trail
from fedunlearn.requests.chain import Head
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import LIVE_BRANCH, Move, RequestRecord
from fedunlearn.requests.schema import APPLIED, STILL_OPEN
from fedunlearn.requests.transitions import RequestConflictError

WITHDRAWABLE = ("received", "waiting")


class InvalidRequestError(UserError):
    """A request that can mean nothing: it names no client, or one that does not exist. Nothing was recorded."""


class NotAllowedError(UserError):
    """A client asked for something that is not its own. Nothing was recorded."""


class NotWithdrawableError(UserError):
    """Too late to withdraw.

    Attributes
    ----------
    state
        The state the request is in.
    """

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True)
class Receipt:
    """What whoever asked gets in return; all of it is on the disk.

    Attributes
    ----------
    request_id
        Random, and the only name of the request inside the trail.
    state
        "received", or "duplicate" if all its clients had been forgotten already; of a repeated call, the present one.
    clients
        Ascending.
    same_as
        An earlier open request that names all of these clients: see `RequestRecord.same_as`.
    arrived_at
        Unix seconds.
    head
        The place of the request's arrival in the trail. Kept outside, it proves that the request was made.
    repeated
        Whether this call asked again, under the same idempotency key, for what had been asked already.
    """

    request_id: str
    state: str
    clients: tuple[int, ...]
    same_as: str | None
    arrived_at: float
    head: Head
    repeated: bool


class Intake:
    """Takes in a live federation's requests.

    Parameters
    ----------
    ledger
        One without a lease: whoever asks is not the server.
    num_clients
        Clients are numbered from 0 up to this, exclusively.
    """

    def __init__(self, ledger: Ledger, branch: str = LIVE_BRANCH, *, num_clients: int) -> None:
        self.ledger = ledger
        self.branch = branch
        self.num_clients = num_clients
        self._store = ledger.store

    def ask(
        self, clients: Iterable[int], *, source: str, actor: str, idempotency_key: str | None = None
    ) -> Receipt:
        """Record a request to forget clients, durably.

        Parameters
        ----------
        source
            "cli", "http".
        actor
            "operator:<name>", who may ask for anyone, or "client:<number>", which may ask for itself.
        idempotency_key
            Chosen by the one who asks: the same key again is the same request, however often an answer got lost on
            its way. Keys of different actors are different; only their hashes are kept.

        Raises
        ------
        InvalidRequestError
            There is no client, or none of that number.
        NotAllowedError
            A client asks for another.
        RequestConflictError
            The key was used for other clients.
        """
        wanted = self._valid(clients, actor)
        key = None if idempotency_key is None else _hashed(idempotency_key)
        with self.ledger.batch():
            if key is not None and (known := self._by_key(actor, key)) is not None:
                if known.clients != wanted:
                    raise RequestConflictError(
                        f"idempotency key: was used for clients {_named(known.clients)} before, a request for "
                        f"{_named(wanted)} needs a key of its own"
                    )
                return self._receipt(known, repeated=True)
            remaining = self._not_yet_forgotten(wanted)
            request_id = f"r{secrets.token_hex(8)}"
            same_as = self._open_for(wanted) if remaining else None
            at = self.ledger.clock()
            journal.arrive(
                self._store,
                self.branch,
                request_id,
                wanted,
                at,
                source=source,
                actor=actor,
                same_as=same_as,
            )
            if not remaining:
                done = Move(request_id, "duplicate", self._round(), "all its clients had been forgotten")
                journal.move(self._store, self.branch, done, at)
            if key is not None:
                self._store.rows(
                    "INSERT INTO keys (branch, actor, key_hash, id) VALUES (?, ?, ?, ?)",
                    *(self.branch, actor, key, request_id),
                )
            return self._receipt(self.record(request_id), repeated=False)

    def withdraw(self, request_id: str, *, actor: str) -> RequestRecord:
        """Take a request back, before anything has been planned for it.

        Raises
        ------
        UnknownRequestError
            There is none of that id.
        NotAllowedError
            The actor is a client, and the request is not for that client alone.
        NotWithdrawableError
            It has gone on from there; the error tells its state.
        """
        with self.ledger.batch():
            record = self.record(request_id)
            own = _own(actor)
            if own is not None and record.clients != own:
                raise NotAllowedError(
                    f"request {request_id}: {actor} may withdraw only requests for itself alone"
                )
            if record.state not in WITHDRAWABLE:
                raise NotWithdrawableError(
                    f"request {request_id}: is {record.state}; it can be withdrawn only while it is "
                    f"{' or '.join(WITHDRAWABLE)}",
                    record.state,
                )
            step = Move(request_id, "withdrawn", self._round(), f"by {actor}")
            journal.move(self._store, self.branch, step, self.ledger.clock())
            return self.record(request_id)

    def record(self, request_id: str) -> RequestRecord:
        """Return a request as it stands; UnknownRequestError if there is none of that id."""
        return journal.get(self._store, self.branch, request_id)

    def _valid(self, clients: Iterable[int], actor: str) -> tuple[int, ...]:
        asked = tuple(clients)
        if not asked:
            raise InvalidRequestError("clients: names none; name at least one client")
        wrong = [c for c in asked if type(c) is not int or not 0 <= c < self.num_clients]
        if wrong:
            raise InvalidRequestError(
                f"clients: {wrong[0]!r} is no client of this federation; must be from 0 to {self.num_clients - 1}"
            )
        wanted = tuple(sorted(set(asked)))
        own = _own(actor)
        if own is not None and wanted != own:
            raise NotAllowedError(f"clients: {actor} may ask for itself only, not for {_named(wanted)}")
        return wanted

    def _by_key(self, actor: str, key: str) -> RequestRecord | None:
        found = self._store.row(
            "SELECT id FROM keys WHERE branch = ? AND actor = ? AND key_hash = ?", self.branch, actor, key
        )
        return None if found is None else self.record(found["id"])

    def _not_yet_forgotten(self, clients: tuple[int, ...]) -> tuple[int, ...]:
        sql = "SELECT 1 FROM named WHERE branch = ? AND client = ? AND standing = ? LIMIT 1"
        return tuple(c for c in clients if self._store.row(sql, self.branch, c, APPLIED) is None)

    def _open_for(self, clients: tuple[int, ...]) -> str | None:
        """Return the earliest open request that names all these clients."""
        rows = self._store.rows(
            "SELECT requests.id, clients FROM named JOIN requests USING (branch, id) "
            "WHERE named.branch = ? AND named.client = ? AND standing = ? AND json_array_length(clients) >= ? "
            "ORDER BY named.arrival LIMIT ?",
            # Any open request that names the one client will do; for several, all of the first one's are looked at.
            *(self.branch, clients[0], STILL_OPEN, len(clients), 1 if len(clients) == 1 else -1),
        )
        for row in rows:
            if set(clients) <= set(json.loads(row["clients"])):
                return str(row["id"])
        return None

    def _round(self) -> int:
        return plans.last_round(self._store, self.branch)

    def _receipt(self, record: RequestRecord, *, repeated: bool) -> Receipt:
        return Receipt(
            record.id,
            record.state,
            record.clients,
            record.same_as,
            record.arrived_at,
            trail.arrival(self._store.rows, self.branch, record.id),
            repeated,
        )


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _own(actor: str) -> tuple[int, ...] | None:
    """Return the clients an actor may speak for; None: all."""
    role, _, name = actor.partition(":")
    if role == "operator" and name:
        return None
    if role == "client" and name.isascii() and name.isdigit():
        return (int(name),)
    raise ValueError(f"actor {actor!r}: must be operator:<name> or client:<number>")


def _named(clients: tuple[int, ...]) -> str:
    return ", ".join(map(str, clients))
