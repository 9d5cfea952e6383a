"""Which requests a certificate must speak of beside its own, found without going through all others for each.

Everything is told as of an entry of the trail: what a certificate written then could know. However many requests name
the same client, a certificate names a few of them: of the earlier ones that ended alike the last, whose certificate
names the one before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from fedunlearn.certificates.words import ENDINGS
from fedunlearn.requests.records import AuditEntry, RequestRecord
from fedunlearn.requests.transitions import ENDS

FEW = 16
"""So many requests of one kind are named at most for each client, or for each step."""


@dataclass(frozen=True)
class _Life:
    """A request, and the entries with which it came, was applied to the weights and ended; None: it has not (yet)."""

    record: RequestRecord
    arrived: int | None
    applied: int | None
    ended: int | None
    left_out: bool
    """Whether its end leaves its clients out of training for good, with nothing unlearned."""


class Relations:
    """All requests of one federation, found by what they name and by the round that unlearned them.

    Parameters
    ----------
    requests
        As they stand now, or at any later time than what is asked for.
    trail
        Its entries by number.
    """

    def __init__(self, requests: Iterable[RequestRecord], trail: Iterable[AuditEntry]) -> None:
        arrived: dict[str, int] = {}
        applied, ended = {}, {}
        left_out = set()
        for entry in trail:
            arrived.setdefault(entry.request_id, entry.entry)
            if entry.to_state == "recovering":
                applied[entry.request_id] = entry.entry
            elif entry.to_state in ENDS:
                ended[entry.request_id] = entry.entry
                # A request that was refused before any step was tried changes nothing for its clients.
                if entry.to_state in ("excluded", "failed") or entry.from_state == "unlearning":
                    left_out.add(entry.request_id)
        self._lives = {
            r.id: _Life(r, arrived.get(r.id), applied.get(r.id), ended.get(r.id), r.id in left_out)
            for r in requests
        }
        by_arrival = sorted(self._lives.values(), key=lambda life: life.record.arrival)
        self._ended_naming: dict[tuple[int, str], list[_Life]] = {}
        self._applied_naming: dict[int, list[_Life]] = {}
        # Number → the entry with which it was first applied, and the round; the first that left it out for good; and
        # of each request that names it, in order of arrival: its first entry, and the last by which it or an earlier
        # one was open.
        self._first: dict[int, tuple[int, int | None]] = {}
        self._left_out: dict[int, int] = {}
        self._open: dict[int, list[tuple[int, float]]] = {}
        self._steps: dict[int, list[_Life]] = {}
        for life in by_arrival:
            for number in life.record.clients:
                if life.arrived is not None:
                    spans = self._open.setdefault(number, [])
                    over = min(life.applied or inf, life.ended or inf)
                    spans.append((life.arrived, max(over, spans[-1][1]) if spans else over))
                if life.left_out and life.ended is not None:
                    self._left_out[number] = min(life.ended, self._left_out.get(number, life.ended))
                if life.ended is not None:
                    self._ended_naming.setdefault((number, life.record.state), []).append(life)
                if life.applied is not None:
                    self._applied_naming.setdefault(number, []).append(life)
                    first = (life.applied, life.record.unlearned_round)
                    if first[0] <= self._first.get(number, first)[0]:
                        self._first[number] = first
            if life.applied is not None and life.record.unlearned_round is not None:
                self._steps.setdefault(life.record.unlearned_round, []).append(life)
        self._applied = {
            round: sorted(life.applied for life in lives if life.applied is not None)
            for round, lives in self._steps.items()
        }
        self._rounds = sorted(self._steps)

    def __getitem__(self, request_id: str) -> RequestRecord:
        return self._lives[request_id].record

    def unlearned(self, number: int, by: int) -> Iterator[RequestRecord]:
        """Yield the requests that name a client, or part, and were applied by an entry, in order of arrival."""
        return (life.record for life in self._applied_naming.get(number, ()) if _by(life.applied, by))

    def first_unlearned(self, number: int, by: int) -> int | None:
        """Return the first round that unlearned a client, or part, by an entry; None: none did."""
        entry, round = self._first.get(number, (None, None))
        return round if _by(entry, by) else None

    def left_out(self, number: int, by: int) -> bool:
        """Whether a request that names a client, or part, had by an entry ended with it left out for good."""
        return _by(self._left_out.get(number), by)

    def open(self, number: int, by: int) -> bool:
        """Whether a request that names a client, or part, was at an entry neither applied nor ended."""
        spans = self._open.get(number, [])
        came = bisect_right(spans, by, key=lambda span: span[0])
        return came > 0 and spans[came - 1][1] > by

    def last_ended(self, number: int, before: int, by: int) -> Iterator[RequestRecord]:
        """Yield, for each way to end, the last that names a client, or part, of those that arrived before another.

        Parameters
        ----------
        before
            The other's place in the order of arrival.
        by
            The entry by which they had ended.
        """
        for state in sorted(ENDS):
            naming = self._ended_naming.get((number, state), [])
            place = bisect_left(naming, before, key=lambda life: life.record.arrival)
            earlier = (naming[i] for i in range(place - 1, -1, -1))
            if (last := next((life for life in earlier if _by(life.ended, by)), None)) is not None:
                yield last.record

    def step(self, round: int, by: int) -> Iterator[RequestRecord]:
        """Yield those that a round unlearned, by an entry, in order of arrival."""
        return (life.record for life in self._steps.get(round, ()) if _by(life.applied, by))

    def step_size(self, round: int, by: int) -> int:
        """Return how many a round unlearned, by an entry."""
        return bisect_right(self._applied.get(round, []), by)

    def next_step(self, round: int, by: int) -> Iterator[RequestRecord]:
        """Yield those that were unlearned in the first later round in which any were, by an entry."""
        later = self._rounds[bisect_right(self._rounds, round) :]
        return self.step(next((one for one in later if self.step_size(one, by)), -1), by)


def related(record: RequestRecord, relations: Relations, by: int) -> dict[str, Any]:
    """Return the other requests that a reader of this one's certificate must know of, by id.

    Parameters
    ----------
    by
        The entry of the trail as of which it is told.

    Returns
    -------
    dict
        ``same_as``: the request this one repeats; ``done_by``: of a duplicate, those that unlearned its clients;
        ``forgotten_by``: of one that ended otherwise with nothing unlearned, client → those that unlearned it;
        ``recovery_taken_over_by``: of a superseded one; ``same_step``: others applied in the same round, and
        ``same_step_more``: how many more there are; ``earlier``: for each client and each way to end, the last of the
        requests that name it, came before and have ended so. No more than `FEW` for each client or step.
    """
    # A part of a client's data is forgotten with the client, too.
    names = {client: {client} for client in record.clients}
    names |= {part.number: {part.number, part.client} for part in record.parts}
    all_names = sorted(set[int]().union(*names.values()))
    done_by: set[str] = set()
    taken_over: list[str] = []
    same_step: list[str] = []
    more = 0
    forgotten_by: dict[str, list[str]] = {}
    if record.state == "duplicate":
        done_by.update(*(_few(relations.unlearned(number, by), record) for number in all_names))
    elif not ENDINGS[record.state].unlearned:
        for client in record.clients:
            own = set[str]().union(*(_few(relations.unlearned(n, by), record) for n in names[client]))
            if own:
                forgotten_by[str(client)] = sorted(own)
    if record.unlearned_round is not None:
        if record.state == "superseded":
            taken_over = _few(relations.next_step(record.unlearned_round, by), record)
        same_step = _few(relations.step(record.unlearned_round, by), record)
        more = relations.step_size(record.unlearned_round, by) - 1 - len(same_step)
    earlier = {o.id for number in all_names for o in relations.last_ended(number, record.arrival, by)}
    return {
        "same_as": record.same_as,
        "done_by": sorted(done_by),
        "forgotten_by": forgotten_by,
        "recovery_taken_over_by": sorted(taken_over),
        "same_step": sorted(same_step),
        "same_step_more": max(0, more),
        "earlier": sorted(earlier),
    }


def _few(requests: Iterable[RequestRecord], own: RequestRecord) -> list[str]:
    """Return the ids of the first of some requests, without one's own."""
    found: list[str] = []
    for request in requests:
        if len(found) == FEW:
            break
        if request.id != own.id:
            found.append(request.id)
    return found


def _by(entry: int | None, last: int) -> bool:
    return entry is not None and entry <= last
