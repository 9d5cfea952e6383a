"""What becomes of each open request of a live federation when a round is planned. One pure function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedunlearn.config import RequestsConfig
from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Parts
from fedunlearn.requests import NEVER_TOOK_PART

NOBODY_LEFT = "nobody would be left to learn from"
FORGOTTEN_ALREADY = "its clients are already forgotten"
OUT_OF_REACH = "its clients cannot be reached"
TOO_LATE = "its clients could not be reached before the deadline"

Ended = Literal["duplicate", "refused", "excluded"]


@dataclass(frozen=True)
class OpenRequest:
    """A request that is neither planned nor ended, as far as it matters here.

    Attributes
    ----------
    id : str
    clients : frozenset[int]
        Clients, or parts of clients' data.
    arrived_at : float
        Unix seconds.
    waits : bool
        Whether the ledger has it as ``waiting`` already.
    held : bool
        Whether a client of its own has failed at its forgetting before: others do not wait for it.
    rests : bool
        Whether it is too early to try a held one again.
    failing : bool
        Whether that happened so often that its clients count as out of reach, though they can be asked.
    alone : bool
        Whether it is to be served by itself: a step that it shared was rolled back.
    under_way : bool
        Whether it is in the middle of an unlearning of several rounds. All that are share one.
    """

    id: str
    clients: frozenset[int]
    arrived_at: float
    waits: bool = False
    held: bool = False
    rests: bool = False
    failing: bool = False
    alone: bool = False
    under_way: bool = False


@dataclass(frozen=True)
class Federation:
    """What the rules look at beside the requests. Where it says clients, parts of clients' data may be among them.

    Attributes
    ----------
    num_clients : int
        All clients there ever were.
    forgotten : frozenset[int]
        Clients whose forgetting has been applied to the weights.
    left_out : frozenset[int]
        Further clients that never train again: excluded, or of a request that the guard refused.
    unreachable : frozenset[int]
        Clients that cannot take part in their forgetting now.
    stored : frozenset[int]
        Clients of which there is a stored update to forget them by.
    contributed : frozenset[int] or None
        Clients that the model has learned from; None: any may be. Of others there is nothing to forget, and a step
        against what they would have contributed would only do harm.
    recovering : bool
        Whether an earlier request's recovery goes on.
    now : float
        Unix seconds.
    parts : Parts
        The parts of clients' data that requests have named.
    """

    num_clients: int
    forgotten: frozenset[int] = frozenset()
    left_out: frozenset[int] = frozenset()
    unreachable: frozenset[int] = frozenset()
    stored: frozenset[int] = frozenset()
    contributed: frozenset[int] | None = None
    recovering: bool = False
    now: float = 0.0
    parts: Parts = NO_PARTS


@dataclass(frozen=True)
class Triage:
    """What is to be done.

    Attributes
    ----------
    serve : tuple[str, ...]
        Requests to unlearn in the round that is being planned, in order of arrival.
    ended : Mapping[str, tuple[Ended, str]]
        Requests that end here, with nothing applied → how, and why.
    waiting : tuple[str, ...]
        Requests that begin to wait for a client.
    gone : frozenset[int]
        All clients that must not train: the forgotten, those left out, and those of every open request.
    goes_on : bool
        Whether the unlearning under way is what is served: with its next round, and with nobody else.
    """

    serve: tuple[str, ...] = ()
    ended: Mapping[str, tuple[Ended, str]] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    gone: frozenset[int] = frozenset()
    goes_on: bool = False


def triage(requests: Iterable[OpenRequest], federation: Federation, rules: RequestsConfig) -> Triage:
    """Decide about every open request.

    Parameters
    ----------
    requests
        In order of arrival, which decides who is refused when not all can be served.
    federation
    rules

    Notes
    -----
    A request whose clients are all named by one earlier open request is left as it is: it is a duplicate once that
    one has been applied, and served itself if it never is. Those that cannot be served now hold up nobody else.

    An unlearning of several rounds is gone on with whatever else is asked, but for one whose last round failed: if it
    cannot be tried again at once it is broken off, and its requests are treated like all others.

    Who forgets a part of its data goes on with the rest: only whole clients are counted when nobody may be left. How
    many rows a part has, and whether any are left besides, only its client knows.
    """
    ended: dict[str, tuple[Ended, str]] = {}
    gone = set(federation.forgotten | federation.left_out)
    whole = set(federation.parts.clients(gone))
    pending: list[OpenRequest] = []
    requests = list(requests)
    going_on = _going_on(requests, federation, rules)
    naming: defaultdict[int, list[frozenset[int]]] = defaultdict(list)  # client → earlier open requests
    for request in requests:
        clients = request.clients
        leaving = federation.parts.clients(clients) - whole
        if request in going_on:
            gone |= clients
            whole |= leaving
            for client in clients:
                naming[client].append(clients)
        elif clients <= federation.forgotten:
            ended[request.id] = ("duplicate", FORGOTTEN_ALREADY)
        elif _named_before(clients, naming, federation.parts):
            continue
        elif len(whole) + len(leaving) >= federation.num_clients:
            ended[request.id] = ("refused", NOBODY_LEFT)
        elif federation.contributed is not None and clients.isdisjoint(federation.contributed):
            ended[request.id] = ("excluded", NEVER_TOOK_PART)
            gone |= clients
            whole |= leaving
        else:
            gone |= clients
            whole |= leaving
            pending.append(request)
            for client in clients:
                naming[client].append(clients)
    here: list[OpenRequest] = []
    waiting: list[str] = []
    for request in pending:
        if (why := _given_up(request, federation, rules)) is not None:
            ended[request.id] = ("excluded", why)
        elif not _missing(request, federation):
            here.append(request)
        elif not request.waits and _has_had_its_window(request, federation, rules):
            waiting.append(request.id)
    serve = tuple(r.id for r in going_on or _served(here, federation, rules))
    return Triage(serve, ended, tuple(waiting), frozenset(gone), goes_on=bool(going_on))


def _going_on(
    requests: list[OpenRequest], federation: Federation, rules: RequestsConfig
) -> list[OpenRequest]:
    """Return the requests whose unlearning is gone on with."""
    under_way = [r for r in requests if r.under_way]
    stuck = (
        r.failing or _missing(r, federation) or _given_up(r, federation, rules) is not None
        for r in under_way
        if r.waits
    )
    return [] if any(stuck) else under_way


def _named_before(clients: frozenset[int], naming: Mapping[int, list[frozenset[int]]], parts: Parts) -> bool:
    """Whether one earlier open request names all of these, parts by themselves or with their clients."""
    first = min(clients)
    return any(
        all(number in earlier or parts.owner(number) in earlier for number in clients)
        for name in {first, parts.owner(first)}
        for earlier in naming.get(name, ())
    )


def _missing(request: OpenRequest, federation: Federation) -> bool:
    """Whether a client that the forgetting needs is not there, and cannot be stood in for."""
    needed = request.clients - federation.forgotten
    if federation.contributed is not None:
        needed &= federation.contributed
    return bool((needed & federation.unreachable) - federation.stored)


def _has_had_its_window(request: OpenRequest, federation: Federation, rules: RequestsConfig) -> bool:
    return federation.now - request.arrived_at >= rules.window


def _given_up(request: OpenRequest, federation: Federation, rules: RequestsConfig) -> str | None:
    """Say why a request's clients are only left out from now on; None: it is to be unlearned, now or later."""
    missing = _missing(request, federation)
    if rules.offline == "exclude" and (missing or request.failing):
        return OUT_OF_REACH if _has_had_its_window(request, federation, rules) else None
    if rules.deadline is not None and (missing or request.held):
        return TOO_LATE if federation.now - request.arrived_at >= rules.deadline else None
    return None


def _served(here: list[OpenRequest], federation: Federation, rules: RequestsConfig) -> list[OpenRequest]:
    """Return those that are served now: all of them together, once the oldest has waited for its window."""
    if federation.recovering and rules.during_recovery == "wait":
        return []
    # Who failed before does not take others down with it: it is tried again when nobody else is due.
    fresh = [r for r in here if not r.held]
    together = [r for r in fresh if not r.alone]
    if any(_has_had_its_window(r, federation, rules) for r in together):
        return together
    if alone := [r for r in fresh if r.alone]:
        return alone[:1]
    return [] if together else [r for r in here if not r.rests]
