"""Live requests: how they are taken in at the command line and at the door, and taken back.

What can be asked for: whole clients, or parts of their data (`fedunlearn.requests.forget_target`). Each call is one
transaction: killed at any moment, a request is recorded wholly or not at all, and what was acknowledged is on the
disk.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fedunlearn import plurals
from fedunlearn.errors import UserError
from fedunlearn.parts import Part, Parts
from fedunlearn.requests import journal, parts_table, plans, quota, trail
from fedunlearn.requests.chain import Head
from fedunlearn.requests.forget_target import Samples, Wanted, in_words
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import LIVE_BRANCH, Move, RequestRecord, numbers_in
from fedunlearn.requests.schema import APPLIED, STILL_OPEN
from fedunlearn.requests.transitions import RequestConflictError

WITHDRAWABLE = ("received", "waiting")
_LOOKED_AT = 64
"""Open requests that are looked at for one that covers another, at most: the server looks at all when it plans."""
_OPERATOR = re.compile(r"operator:[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLIENT = re.compile(r"client:(0|[1-9][0-9]{0,9})")


class InvalidRequestError(UserError):
    """A request that can mean nothing, such as one that names a client that does not exist. Nothing was recorded."""


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
        Whom it is about, ascending.
    same_as
        An earlier open request that covers all of it: see `RequestRecord.same_as`.
    arrived_at
        Unix seconds.
    head
        The place of the request's arrival in the trail. Kept outside, it proves that the request was made.
    repeated
        Whether this call asked again, under the same idempotency key, for what had been asked already.
    parts
        The parts of the clients' data that it names; empty: all their data.
    """

    request_id: str
    state: str
    clients: tuple[int, ...]
    same_as: str | None
    arrived_at: float
    head: Head
    repeated: bool
    parts: tuple[Part, ...] = ()


class Intake:
    """Takes in a live federation's requests.

    Parameters
    ----------
    ledger
        One without a lease: whoever asks is not the server.
    num_clients
        Clients are numbered from 0 up to this, exclusively.
    task
        Of the federation: masks have no classes that could be forgotten.
    num_classes
        Asked each time that classes are named; None: it is not known here, and every number may be one.
    """

    def __init__(
        self,
        ledger: Ledger,
        branch: str = LIVE_BRANCH,
        *,
        num_clients: int,
        task: str = "classification",
        num_classes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.ledger = ledger
        self.branch = branch
        self.num_clients = num_clients
        self.task = task
        self._num_classes = num_classes
        self._store = ledger.store

    def ask(
        self,
        clients: Iterable[int] | None,
        *,
        samples: Samples = None,
        classes: Iterable[int] | None = None,
        source: str,
        actor: str,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Record a request to forget clients, or parts of their data, durably.

        Parameters
        ----------
        clients
            None: everyone, where `classes` are named.
        samples
            Share of each client's rows (above 0, at most 1); single rows of the one client; or client → its rows.
            None: all.
        classes
            Only rows of these; None: of every class.
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
            It can mean nothing: the error says what is wrong.
        NotAllowedError
            A client asks for another.
        RequestConflictError
            The key was used for something else.
        TooManyRequestsError
            The actor has as many requests as one may have (`fedunlearn.requests.quota`).
        """
        wanted = Wanted.of(clients, samples, classes)
        owners = self._valid(wanted, actor)
        key = None if idempotency_key is None else _hashed(idempotency_key)
        with self.ledger.batch():
            parts = self._numbered(wanted.parts(owners))
            numbers = tuple(sorted(part.number for part in parts)) or owners
            if key is not None and (known := self._by_key(actor, key)) is not None:
                if known.clients != numbers:
                    raise RequestConflictError(
                        f"idempotency key: was already used for {in_words(known.clients, known.parts)}; a request "
                        f"for {in_words(numbers, parts)} needs its own key"
                    )
                return self._receipt(known, repeated=True)
            remaining = self._not_yet_forgotten(numbers, parts)
            request_id = f"r{secrets.token_hex(8)}"
            same_as = self._open_for(numbers, parts) if remaining else None
            at = self.ledger.clock()
            quota.check(self._store, self.branch, actor, at, same_as)
            journal.arrive(
                self._store,
                self.branch,
                request_id,
                numbers,
                at,
                source=source,
                actor=actor,
                same_as=same_as,
                parts=parts,
            )
            if not remaining:
                why = (
                    "everything it names had already been forgotten"
                    if parts
                    else "all its clients were already forgotten"
                )
                done = Move(request_id, "duplicate", self._round(), why)
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
            The actor is a client, and did not make the request itself.
        NotWithdrawableError
            It has gone on from there; the error tells its state.
        """
        with self.ledger.batch():
            record = self.record(request_id)
            if _own(actor) is not None and record.actor != actor:
                raise NotAllowedError(
                    f"request {request_id}: was not made by {actor}; only its maker or an operator may withdraw it"
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

    def _valid(self, wanted: Wanted, actor: str) -> tuple[int, ...]:
        """Return whom a request is about; raise as `ask` does."""
        known = None if wanted.classes is None else self._num_classes()
        if (why := wanted.problem(self.num_clients, self.task, known)) is not None:
            raise InvalidRequestError(why)
        owners = wanted.owners(self.num_clients)
        own = _own(actor)
        if own is not None and owners != own:
            whom = "everyone" if wanted.clients is None else plurals.clients(owners)
            raise NotAllowedError(f"clients: {actor} may ask only for itself, not for {whom}")
        return owners

    def _numbered(self, parts: Iterable[Part]) -> tuple[Part, ...]:
        """Return the parts with the numbers that they have in the ledger from now on."""
        first = self.num_clients
        return tuple(
            replace(part, number=parts_table.number_of(self._store, self.branch, part, first=first))
            for part in parts
        )

    def _by_key(self, actor: str, key: str) -> RequestRecord | None:
        found = self._store.row(
            "SELECT id FROM keys WHERE branch = ? AND actor = ? AND key_hash = ?", self.branch, actor, key
        )
        return None if found is None else self.record(found["id"])

    def _not_yet_forgotten(self, numbers: tuple[int, ...], parts: Sequence[Part]) -> list[int]:
        """Return those that have been forgotten neither by themselves nor as a part of a client that was."""
        sql = "SELECT 1 FROM named WHERE branch = ? AND client IN (?, ?) AND standing = ? LIMIT 1"
        known = Parts(parts)
        ways = ((n, known.owner(n)) for n in numbers)
        return [n for n, owner in ways if self._store.row(sql, self.branch, n, owner, APPLIED) is None]

    def _open_for(self, clients: tuple[int, ...], parts: Sequence[Part]) -> str | None:
        """Return the earliest open request that covers all these clients, or parts."""
        if parts:
            return self._open_for_parts(clients, Parts(parts))
        rows = self._store.rows(
            "SELECT requests.id, clients FROM named JOIN requests USING (branch, id) "
            "WHERE named.branch = ? AND named.client = ? AND standing = ? AND json_array_length(clients) >= ? "
            "ORDER BY named.arrival LIMIT ?",
            # Any open request that names the one client will do; for several, the first one's are looked at.
            *(self.branch, clients[0], STILL_OPEN, len(clients), 1 if len(clients) == 1 else _LOOKED_AT),
        )
        for row in rows:
            if set(clients) <= set(numbers_in(row["clients"], f"clients of request {row['id']}")):
                return str(row["id"])
        return None

    def _open_for_parts(self, numbers: tuple[int, ...], known: Parts) -> str | None:
        rows = self._store.rows(
            "SELECT DISTINCT requests.id, clients, named.arrival FROM named JOIN requests USING (branch, id) "
            "WHERE named.branch = ? AND named.client IN (?, ?) AND standing = ? ORDER BY named.arrival LIMIT ?",
            *(self.branch, numbers[0], known.owner(numbers[0]), STILL_OPEN, _LOOKED_AT),
        )
        for row in rows:
            asked = set(numbers_in(row["clients"], f"clients of request {row['id']}"))
            if all(n in asked or known.owner(n) in asked for n in numbers):
                return str(row["id"])
        return None

    def _round(self) -> int:
        return plans.last_round(self._store, self.branch)

    def _receipt(self, record: RequestRecord, *, repeated: bool) -> Receipt:
        return Receipt(
            record.id,
            record.state,
            record.owners,
            record.same_as,
            record.arrived_at,
            trail.arrival(self._store.rows, self.branch, record.id),
            repeated,
            record.parts,
        )


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _own(actor: str) -> tuple[int, ...] | None:
    """Return the clients an actor may speak for; None: all."""
    if _OPERATOR.fullmatch(actor):
        return None
    if found := _CLIENT.fullmatch(actor):
        return (int(found[1]),)
    raise ValueError(f"actor {actor!r}: must be operator:<name> or client:<number>")
