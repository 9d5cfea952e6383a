"""What the ledger hands out: requests, plans of rounds and audit entries, as plain values."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.json_text import JsonError, loads
from fedunlearn.parts import Part
from fedunlearn.requests.transitions import ENDS, LedgerError

LIVE_BRANCH = "federation"
"""Name of the one branch of a live federation's ledger."""

NEVER_TOOK_PART = "never took part in training, so there is nothing to forget"
"""The remark with which a request ends as ``excluded`` where no round ever had training of its clients."""


NOTHING_OF_IT = "its clients have none of the data it names, or none that had not been forgotten"
"""The remark with which a request for parts of clients' data ends as ``excluded`` where there was nothing of them."""


@dataclass(frozen=True)
class RequestRecord:
    """One forget request as it stands now.

    Attributes
    ----------
    id
        The requester's name for it, unique within a branch.
    clients
        Numbers to forget together, ascending: of clients, or of parts of clients' data.
    at_round
        The request counts as arrived once this round is complete; None for one that arrived live.
    state
        A member of `fedunlearn.requests.transitions.STATES`.
    state_round
        Round of the transition into `state`; None while it has never moved.
    unlearned_round
        Round whose unlearning was applied to the weights; None as long as none was.
    ended_round
        Round in which it reached an end state.
    source
        Where it came from: "experiment", "cli", "http", …
    arrival
        Place in the order of submission within its branch, from 1.
    arrived_at
        When it was recorded, in Unix seconds. Not compared: the same request in a run repeated is equal.
    actor
        Who asked for a live one: "operator:<name>" or "client:<number>"; "" where nobody did.
    same_as
        The earlier request, still open when this one arrived, that names all of these clients: this one is served
        only if that one ends with nothing unlearned.
    parts
        What the numbers of parts stand for, by number; empty where whole clients are named.
    """

    id: str
    clients: tuple[int, ...]
    at_round: int | None
    state: str
    unlearned_round: int | None
    ended_round: int | None
    state_round: int | None = None
    source: str = "experiment"
    arrival: int = 0
    arrived_at: float = field(default=0.0, compare=False)
    actor: str = ""
    same_as: str | None = None
    parts: tuple[Part, ...] = ()

    @property
    def owners(self) -> tuple[int, ...]:
        """The clients that it is about, ascending: those named, or those whose data the parts are of."""
        of_parts = {part.number: part.client for part in self.parts}
        return tuple(sorted({of_parts.get(number, number) for number in self.clients}))

    @property
    def asked(self) -> str:
        """What the entry of its arrival stands for beside the clients: see `asked_digest`."""
        return asked_digest(actor=self.actor, source=self.source, same_as=self.same_as, parts=self.parts)

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to this request any more."""
        return self.state in ENDS


@dataclass(frozen=True)
class PlanRecord:
    """The committed plan of one round.

    Attributes
    ----------
    round
        Round number, from 1.
    plan
        What was committed, as JSON types.
    failed
        Client number → reason, for the clients that did not deliver; empty also while `answered` is False.
    answered
        Whether the round's failures were recorded. A replay of an answered round leaves the failed ones
        out; a round that was not answered is executed from its beginning.
    """

    round: int
    plan: dict[str, Any]
    failed: dict[int, str]
    answered: bool = False


@dataclass(frozen=True)
class AuditEntry:
    """One transition that happened.

    Attributes
    ----------
    seq
        Number within the file.
    branch, entry
        Of which federation, and its place in that one's trail, from 1 without gaps.
    request_id, from_state, to_state, round
        Which request went where in which round; its arrival has `from_state` None.
    at
        Unix seconds.
    clients
        What the request asks for, in the entry of its arrival; None in others.
    detail
        A remark. The only thing here that the hash does not cover.
    hash
        Of this entry and of all before it (see `fedunlearn.requests.chain`).
    asked
        SHA-256 of what else was asked, in the entry of a request's arrival: see `asked_digest`.
    """

    seq: int
    branch: str
    entry: int
    request_id: str
    from_state: str | None
    to_state: str
    round: int | None
    at: float
    clients: tuple[int, ...] | None
    detail: str
    hash: str
    asked: str | None = None


@dataclass(frozen=True)
class Move:
    """One transition to make, for `Ledger.transition_many`; `round` is None only for a live submission."""

    request_id: str
    to: str
    round: int | None
    detail: str = ""


def asked_digest(*, actor: str, source: str, same_as: str | None, parts: Iterable[Part] = ()) -> str:
    """Return the SHA-256 (hex) of what the entry of a request's arrival stands for beside the clients.

    Of the canonical JSON of ``{"actor", "parts", "same_as", "source"}``, where the parts are a list, by number, of
    ``{"classes", "client", "number", "samples"}``. So the trail holds to who asked without naming anybody.
    """
    ordered = sorted(parts, key=lambda part: part.number)
    asked = {"actor": actor, "parts": [p.to_dict() for p in ordered], "same_as": same_as, "source": source}
    return hashlib.sha256(canonical_json(asked, "asked").encode()).hexdigest()


def numbers_in(text: str, place: str) -> tuple[int, ...]:
    """Read a JSON list of whole numbers, as the ledger keeps clients.

    Raises
    ------
    JsonError
        It is none.
    """
    value = loads(text, place) if isinstance(text, str) else None
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise JsonError(f"{place}: is not a list of whole numbers")
    return tuple(value)


def canonical_json(value: object, name: str = "plan") -> str:
    """Write JSON of which there is only one for each value: sorted keys, no spaces, no NaN.

    Tuples are written as lists. Anything else that JSON would silently change (a dict key that is not a
    string) is refused, because a replay would then execute something other than the first execution did.

    Raises
    ------
    LedgerError
        The value at the named place cannot be stored without changing.
    """
    _refuse_what_json_changes(value, name)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _refuse_what_json_changes(value: object, name: str) -> None:
    if value is None or type(value) in (bool, int, str):
        return
    if type(value) is float:
        if value - value != 0.0:
            raise LedgerError(f"{name} = {value!r}: must be finite")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise LedgerError(f"{name} has the key {key!r}: keys must be strings, as a replay reads JSON")
            _refuse_what_json_changes(item, f"{name}.{key}")
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_what_json_changes(item, f"{name}[{index}]")
        return
    raise LedgerError(
        f"{name} is a {type(value).__name__}: must be of JSON types (None, bool, int, float, str, list, dict)"
    )
