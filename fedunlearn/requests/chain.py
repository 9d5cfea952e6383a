"""The hash chain of a branch's audit entries: what an entry's hash covers, and what a check finds. Pure functions.

Each hash covers the one before it, so that the last one, the *head*, stands for all entries up to it: whoever kept a
head can tell later whether anything at or before it was edited, removed or inserted. Inside the chain there are only
request ids, client numbers, states, rounds, times, and a hash of who asked for which parts of the data; remarks of
people (`AuditEntry.detail`) stay outside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedunlearn.errors import UserError
from fedunlearn.requests.records import AuditEntry, RequestRecord
from fedunlearn.requests.transitions import ENDS, INITIAL, is_legal

GENESIS = "0" * 64
"""What stands for the hash of the entry before the first."""

_HEAD = re.compile(r"([1-9][0-9]*):([0-9a-f]{64})")


@dataclass(frozen=True)
class Head:
    """The last entry of a trail at some time: its number, from 1, and its hash, 64 hexadecimal digits."""

    entry: int
    hash: str

    def __str__(self) -> str:
        return f"{self.entry}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``<entry>:<hash>``, as `str` writes it.

        Raises
        ------
        UserError
            It is none.
        """
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise UserError(
                f"head {text!r}: must be an entry's number and its hash of 64 hexadecimal digits, such as "
                f"12:{GENESIS[:8]}…"
            )
        return cls(int(found[1]), found[2])


@dataclass(frozen=True)
class SignedHead:
    """A head that somebody put a key to.

    Attributes
    ----------
    entry, hash
        The head.
    at
        When it was signed, in Unix seconds.
    key_id
        Which key.
    signature
        As text; what exactly is signed is the signer's business.
    """

    entry: int
    hash: str
    at: float
    key_id: str
    signature: str

    @property
    def head(self) -> Head:
        """What was signed."""
        return Head(self.entry, self.hash)


def entry_hash(
    previous: str,
    *,
    branch: str,
    entry: int,
    request_id: str,
    from_state: str | None,
    to_state: str,
    round: int | None,
    at: float,
    clients: Iterable[int] | None,
    asked: str | None = None,
) -> str:
    """Return the hash of one entry.

    SHA-256, in hexadecimal, of `previous` (the hash of the entry before, `GENESIS` for the first) followed by the
    JSON array ``[branch, entry, request_id, from_state, to_state, round, at, clients]``, written without spaces and
    in ASCII; where there is `asked`, it follows as the last item.

    Parameters
    ----------
    at
        Unix seconds.
    clients
        What was asked for, in the entry that records a request's arrival; None in all others.
    asked
        There, too: the SHA-256 of who asked, how, and for which parts of clients' data (`records.asked_digest`).
    """
    whom = None if clients is None else list(clients)
    content = [branch, entry, request_id, from_state, to_state, round, at, whom]
    content += [] if asked is None else [asked]
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256((previous + text).encode()).hexdigest()


def problems(
    entries: Sequence[AuditEntry], requests: Iterable[RequestRecord], heads: Iterable[tuple[str, Head]] = ()
) -> list[str]:
    """Return what is wrong with a branch's trail, one line each; nothing if it is intact.

    Parameters
    ----------
    entries
        All entries of the branch, by number.
    requests
        All its requests: each must stand as the trail says.
    heads
        Heads that the trail must contain, each with the name by which a problem speaks of it.
    """
    return [
        *_chain_problems(entries),
        *_life_problems(entries, {record.id: record for record in requests}),
        *_head_problems(entries, heads),
    ]


def _chain_problems(entries: Sequence[AuditEntry]) -> Iterable[str]:
    previous, expected, last_seq = GENESIS, 1, 0
    for entry in entries:
        if entry.entry > expected:
            last = entry.entry - 1
            yield (
                f"entry {last} is missing"
                if last == expected
                else f"entries {expected} to {last} are missing"
            )
        elif entry.entry < expected:
            yield f"entry {entry.entry} appears twice or is out of place"
        elif entry.hash != _hash_of(entry, previous):
            yield (
                f"{_name(entry)}: does not follow from the entry before it; something was edited, removed or "
                "inserted"
            )
        if entry.seq <= last_seq:
            yield f"{_name(entry)}: was written before its predecessor; they have been swapped"
        previous, expected, last_seq = entry.hash, entry.entry + 1, entry.seq


def _hash_of(entry: AuditEntry, previous: str) -> str:
    return entry_hash(
        previous,
        branch=entry.branch,
        entry=entry.entry,
        request_id=entry.request_id,
        from_state=entry.from_state,
        to_state=entry.to_state,
        round=entry.round,
        at=entry.at,
        clients=entry.clients,
        asked=entry.asked,
    )


@dataclass
class _Life:
    """A request as the trail tells of it."""

    clients: tuple[int, ...] | None
    at_round: int | None
    arrived_at: float
    asked: str | None
    state: str = INITIAL
    state_round: int | None = None
    unlearned_round: int | None = None

    @property
    def ended_round(self) -> int | None:
        return self.state_round if self.state in ENDS else None


def _life_problems(entries: Sequence[AuditEntry], records: dict[str, RequestRecord]) -> Iterable[str]:
    lives: dict[str, _Life] = {}
    for entry in entries:
        life = lives.get(entry.request_id)
        if life is None:
            if (entry.from_state, entry.to_state) != (None, INITIAL):
                yield f"{_name(entry)}: this request's arrival is missing from the trail"
            life = lives[entry.request_id] = _Life(entry.clients, entry.round, entry.at, entry.asked)
            if entry.from_state is None and entry.to_state == INITIAL:
                continue
        elif entry.from_state != life.state or not is_legal(life.state, entry.to_state):
            yield f"{_name(entry)}: the request was {life.state} then and could not take this step"
        if entry.to_state == "recovering":
            life.unlearned_round = life.state_round
        life.state, life.state_round = entry.to_state, entry.round
    for request_id, life in lives.items():
        record = records.get(request_id)
        if record is None:
            yield f"request {request_id}: is in the trail, but not among the requests"
            continue
        for name in (
            "state",
            "state_round",
            "unlearned_round",
            "ended_round",
            "clients",
            "at_round",
            "arrived_at",
        ):
            says, stands = getattr(life, name), getattr(record, name)
            if says != stands:
                yield f"request {request_id}: its {name} is {stands!r}, but the trail says {says!r}"
        if life.asked != record.asked:
            what = "who asked, how, for which parts of clients' data or as a repeat of which request"
            yield f"request {request_id}: {what} differs from the trail"
    for request_id in records.keys() - lives.keys():
        yield f"request {request_id}: is among the requests, but not in the trail"


def _head_problems(entries: Sequence[AuditEntry], heads: Iterable[tuple[str, Head]]) -> Iterable[str]:
    hashes = {entry.entry: entry.hash for entry in entries}
    last = max(hashes, default=0)
    for name, head in heads:
        if head.entry > last:
            yield f"{name} belongs to entry {head.entry}, but the trail ends at entry {last}: it was cut off"
        elif hashes.get(head.entry) != head.hash:
            yield f"{name} has a different hash for entry {head.entry}: that entry or an earlier one was changed"


def _name(entry: AuditEntry) -> str:
    step = entry.to_state if entry.from_state is None else f"{entry.from_state} → {entry.to_state}"
    return f"entry {entry.entry} (request {entry.request_id}: {step})"
