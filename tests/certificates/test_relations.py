"""What a certificate says of other requests: against the plain definition, and never of more than a few of them."""

import random

import pytest

from fedunlearn.certificates.relations import FEW, Relations, related
from fedunlearn.parts import Part
from fedunlearn.requests import ENDS, STATES, RequestRecord
from fedunlearn.requests.records import AuditEntry

UNLEARNED = ("recovering", "forgotten", "forgotten-unrecovered", "superseded")
PARTS = {number: Part(number, number % 4, 0.5) for number in range(4, 8)}


def history(draw: random.Random, number: int) -> tuple[list[RequestRecord], list[AuditEntry]]:
    """Draw requests for clients 0 to 3 and parts 4 to 7 of their data, and a trail that led there."""
    records, trail = [], []

    def enter(id_: str, state: str) -> int:
        trail.append(AuditEntry(0, "b", len(trail) + 1, id_, None, state, 1, 0.0, None, "", ""))
        return len(trail)

    for arrival in range(1, number + 1):
        id_, state = f"r{arrival}", draw.choice(STATES)
        of_parts = draw.random() < 0.4
        named = tuple(sorted(draw.sample(range(4, 8) if of_parts else range(4), draw.randint(1, 2))))
        round = draw.randint(1, 4) if state in UNLEARNED else None
        parts = tuple(PARTS[n] for n in named) if of_parts else ()
        records.append(
            RequestRecord(
                id_, named, None, state, round, 9 if state in ENDS else None, arrival=arrival, parts=parts
            )
        )
    steps = [(record.id, "recovering") for record in records if record.state in UNLEARNED]
    steps += [(record.id, record.state) for record in records if record.state in ENDS]
    draw.shuffle(steps)
    steps.sort(key=lambda step: step[1] != "recovering")
    for id_, state in steps:
        enter(id_, state)
    return records, trail


def plainly(record: RequestRecord, records: list[RequestRecord], trail: list[AuditEntry], by: int) -> dict:
    """The same by going through all of them."""
    applied = {e.request_id for e in trail if e.to_state == "recovering" and e.entry <= by}
    ended = {e.request_id for e in trail if e.to_state in ENDS and e.entry <= by}
    others = [other for other in records if other.id != record.id]
    names = {c: {c} for c in record.clients} | {p.number: {p.number, p.client} for p in record.parts}
    mine = set().union(*names.values())

    def by_number(number: int) -> set[str]:
        return {o.id for o in others if o.id in applied and number in o.clients}

    done_by = set().union(*map(by_number, mine)) if record.state == "duplicate" else set()
    forgotten_by = {}
    if record.state != "duplicate" and record.state not in UNLEARNED:
        found = {c: set().union(*map(by_number, names[c])) for c in record.clients}
        forgotten_by = {str(c): sorted(ids) for c, ids in found.items() if ids}
    step, taken_over = [], []
    if record.unlearned_round is not None:
        step = [o.id for o in others if o.id in applied and o.unlearned_round == record.unlearned_round]
        later = [o for o in others if o.id in applied and o.unlearned_round > record.unlearned_round]
        if record.state == "superseded" and later:
            first = min(o.unlearned_round for o in later)
            taken_over = [o.id for o in later if o.unlearned_round == first]
    last = {}
    for other in sorted(others, key=lambda o: o.arrival):
        if other.id in ended and other.arrival < record.arrival:
            last |= {(number, other.state): other.id for number in mine.intersection(other.clients)}
    return {
        "same_as": None,
        "done_by": sorted(done_by),
        "forgotten_by": forgotten_by,
        "recovery_taken_over_by": sorted(taken_over),
        "same_step": sorted(step),
        "same_step_more": 0,
        "earlier": sorted(set(last.values())),
    }


@pytest.mark.parametrize("seed", range(60))
def test_what_is_said_of_others_is_the_plain_definition(seed: int) -> None:
    draw = random.Random(seed)
    records, trail = history(draw, draw.randint(1, 14))
    relations = Relations(records, trail)
    ends = [(r, e.entry) for r in records for e in trail if e.request_id == r.id and e.to_state in ENDS]
    for record, first in ends:
        for by in range(first, len(trail) + 1):
            assert related(record, relations, by) == plainly(record, records, trail, by), (record, by)


def test_of_very_many_a_few_are_named_and_the_rest_counted() -> None:
    number = 50
    records = [RequestRecord(f"r{n:03}", (0,), None, "forgotten", 2, 3, arrival=n + 1) for n in range(number)]
    records += [
        RequestRecord(f"s{n:03}", (0,), None, "withdrawn", None, 3, arrival=number + n + 1)
        for n in range(number)
    ]
    steps = [(r.id, "recovering") for r in records[:number]] + [(r.id, r.state) for r in records]
    trail = [
        AuditEntry(0, "b", place + 1, id_, None, state, 2, 0.0, None, "", "")
        for place, (id_, state) in enumerate(steps)
    ]
    relations = Relations(records, trail)
    told = related(records[0], relations, len(trail))
    assert told["same_step"] == [f"r{n:03}" for n in range(1, FEW + 1)]
    assert told["same_step_more"] == number - 1 - FEW and told["earlier"] == []
    told = related(records[-1], relations, len(trail))
    assert told["forgotten_by"] == {"0": [f"r{n:03}" for n in range(FEW)]}
    assert told["earlier"] == [f"r{number - 1:03}", f"s{number - 2:03}"], "the last of each kind"
