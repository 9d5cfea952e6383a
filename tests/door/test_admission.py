"""Places at the door: bounded in all and for each host, and never kept by those who keep the door waiting."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedunlearn.door.admission import Admission, Visitor
from tests.profiles import some

TOTAL, EACH = 6, 3


def make(admission: Admission, host: str, ended: list[str], name: str) -> Visitor:
    visitor = Visitor(host, lambda: ended.append(name))
    if not admission.enter(visitor):
        ended.append(f"{name} turned away")
    return visitor


def test_the_longest_awaited_of_the_same_host_makes_room() -> None:
    admission, ended = Admission(10, 2), list[str]()
    make(admission, "a", ended, "first")
    other = make(admission, "b", ended, "other")
    second = make(admission, "a", ended, "second")
    admission.answering(second)
    admission.awaiting(second)  # since later than the first
    make(admission, "a", ended, "third")
    assert ended == ["first"]
    make(admission, "a", ended, "fourth")
    assert ended == ["first", "second"]
    admission.leave(other)
    admission.leave(other)
    assert len(admission) == 2


def test_who_is_answered_stays_and_the_newcomer_is_turned_away() -> None:
    admission, ended = Admission(10, 2), list[str]()
    for name in ("first", "second"):
        admission.answering(make(admission, "a", ended, name))
    make(admission, "a", ended, "third")
    assert ended == ["third turned away"] and len(admission) == 2


def test_a_crowd_of_one_host_makes_room_for_another() -> None:
    admission, ended = Admission(5), list[str]()
    make(admission, "b", ended, "quiet")
    for number in range(20):
        make(admission, "a", ended, f"{number}")
    make(admission, "c", ended, "newcomer")
    assert "quiet" not in ended and "newcomer" not in ended and len(admission) == 5
    assert ended == [f"{number}" for number in range(17)]


class Places(RuleBasedStateMachine):
    """Against a list of who is there, in the order in which the door began to wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(TOTAL, EACH)
        self.there: list[tuple[Visitor, bool]] = []  # and whether it is being answered
        self.ended: list[Visitor] = []

    def of(self, host: str | None) -> list[Visitor]:
        return [v for v, answered in self.there if not answered and host in (None, v.host)]

    @rule(host=st.sampled_from("abc"))
    def enter(self, host: str) -> None:
        visitor = Visitor(host, lambda: None)
        visitor.end = lambda: self.ended.append(visitor)
        hosts = Counter(v.host for v, _ in self.there)
        waiting = Counter(v.host for v in self.of(None))
        full, own = len(self.there) >= TOTAL, hosts[host] >= EACH
        before = len(self.ended)
        entered = self.admission.enter(visitor)
        gone = self.ended[before:]
        if own:
            assert entered == bool(self.of(host)) and gone == self.of(host)[:1]
        elif full:
            assert entered == bool(waiting) and len(gone) == entered
            assert not gone or gone[0] == self.of(gone[0].host)[0]
            assert not gone or waiting[gone[0].host] == max(waiting.values())
        else:
            assert entered and not gone
        self.there = [(v, a) for v, a in self.there if v not in gone]
        if entered:
            self.there.append((visitor, False))

    @precondition(lambda self: self.there)
    @rule(data=st.data(), answered=st.booleans())
    def turn(self, data: st.DataObject, answered: bool) -> None:
        visitor, before = data.draw(st.sampled_from(self.there))
        (self.admission.answering if answered else self.admission.awaiting)(visitor)
        if before != answered:
            self.there.remove((visitor, before))
            self.there.append((visitor, answered))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        everybody = [v for v, _ in self.there] + self.ended[-2:]
        if everybody:
            visitor = data.draw(st.sampled_from(everybody))
            self.admission.leave(visitor)
            self.admission.answering(visitor)
            self.admission.awaiting(visitor)
            self.there = [(v, a) for v, a in self.there if v is not visitor]

    @invariant()
    def counts(self) -> None:
        assert len(self.admission) == len(self.there) <= TOTAL
        assert max(Counter(v.host for v, _ in self.there).values(), default=0) <= EACH
        assert len(set(self.ended)) == len(self.ended), "nobody is ended twice"


TestPlaces = Places.TestCase
TestPlaces.settings = settings(some, stateful_step_count=40)
