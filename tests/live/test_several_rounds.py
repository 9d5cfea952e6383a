"""An unlearning of several rounds in a live federation: its guard, clients that go away, and who else asks."""

import math

import pytest
import torch

from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.requests.intake import NotWithdrawableError
from tests.federation.contributions import bits
from tests.live.living import Living, Scripted
from tests.server.three_rounds import ThreeRounds, by_hand
from tests.server.tiny import initial_state, only, raising

LOST = raising(OSError("lost"))
EVERYONE = (0, 1, 2, 3, 4, 5)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def qualities(**by_round):
    """Return a measure that is 50 but in the rounds r<number>."""
    found = {int(name[1:]): value for name, value in by_round.items()}
    return Scripted(lambda round, state: found.get(round, 50.0))


def check(made, story, rounds=None):
    """Check the weights against the sums by hand."""
    states = by_hand(initial_state().vector, story)
    for t in rounds or range(1, len(states)):
        torch.testing.assert_close(made.weights(t).double(), states[t][0], rtol=0, atol=1e-5)


def lives(made):
    """Return what became of the requests, by client."""
    return {r.clients: made.life(r.id)[1:] for r in made.ledger.requests(LIVE_BRANCH)}


@pytest.mark.parametrize("during", ["wait", "join"])
def test_who_asks_meanwhile_waits_until_it_is_complete(tmp_path, during):
    made = Living(tmp_path, rules={"during-recovery": during})
    made.at_round(1, lambda: made.ask(2))
    made.at_round(2, lambda: made.ask(4))
    made.serve(ThreeRounds)
    both = [("scheduled", 2), *(("unlearning", t) for t in (2, 3, 4)), ("recovering", 4), ("forgotten", 4)]
    assert lives(made) == {(2,): both, (4,): [(state, t + 3) for state, t in both]}
    assert [made.clients.of_round(t, FORGET) for t in range(1, 8)] == [[], *[[2]] * 3, *[[4]] * 3]
    assert 4 not in made.clients.of_round(3, TRAIN)
    story = [(EVERYONE, (), 0), ((0, 1, 3, 4, 5), (2,), 0), *[((0, 1, 3, 5), (2,), step) for step in (1, 2)]]
    check(made, [*story, *[((0, 1, 3, 5), (4,), step) for step in (0, 1, 2)]])


def test_who_asks_for_the_same_client_meanwhile_asks_for_nothing_more(tmp_path):
    made = Living(tmp_path)
    made.at_round(1, lambda: made.ask(2))
    made.at_round(3, lambda: made.ask(2))
    made.serve(ThreeRounds)
    first, second = made.ledger.requests(LIVE_BRANCH)
    assert second.same_as == first.id
    assert made.life(second.id) == [("received", None), ("duplicate", 4)]


def test_in_the_middle_of_it_nobody_withdraws(tmp_path):
    made = Living(tmp_path)
    made.at_round(1, lambda: made.ask(2))

    def withdraw():
        (record,) = made.ledger.requests(LIVE_BRANCH)
        with pytest.raises(NotWithdrawableError, match="is unlearning"):
            made.intake.withdraw(record.id, actor="operator:test")

    made.at_round(3, withdraw)
    made.serve(ThreeRounds)
    assert lives(made)[2,][-1] == ("forgotten", 4)


# -- the guard ---------------------------------------------------------------------------------------------


def test_the_guard_judges_what_it_comes_to_and_not_what_lies_between(tmp_path):
    made = Living(tmp_path, guard={"max-drop": 10}, evaluation=qualities(r2=1.0, r3=1.0), max_rounds=9)
    made.at_round(1, lambda: made.ask(2))
    made.serve(ThreeRounds)
    assert lives(made)[2,][-1] == ("forgotten", 4)
    assert made.strategy.requests[0].reference == 50.0


def test_with_the_last_round_all_of_them_are_taken_back(tmp_path):
    """Weights and velocity are those of round 1; the client is left out from then on."""
    made = Living(tmp_path, guard={"max-drop": 10}, rounds=5)
    made.evaluation = Scripted(lambda round, state: 1.0 if made.clients.of_round(4) and round == 4 else 50.0)
    made.at_round(1, lambda: made.ask(2))
    made.serve(ThreeRounds)
    assert lives(made)[2,] == [
        ("scheduled", 2),
        *(("unlearning", t) for t in (2, 3, 4)),
        ("refused", 4),
    ]
    train = (0, 1, 3, 4, 5)
    check(made, [(EVERYONE, (), 0), (train, (2,), 0), (train, (2,), 1), 1, (train, (), 0)])
    assert bits(made.weights(4)) == bits(made.weights(1))
    assert made.strategy.counted == 2
    assert made.checkpoints.load(4).before is None
    assert made.strategy.requests[0].steps == 0


def test_of_several_that_are_taken_back_each_is_tried_alone(tmp_path):
    made = Living(tmp_path, guard={"max-drop": 10}, evaluation=qualities(r4=1.0))
    made.at_round(1, lambda: (made.ask(2), made.ask(4)))
    made.serve(ThreeRounds)
    train = (0, 1, 3, 5)
    both = [(train, (2, 4), 0), (train, (2, 4), 1), 1]
    alone = [(train, (k,), step) for k in (2, 4) for step in (0, 1, 2)]
    check(made, [(EVERYONE, (), 0), *both, *alone])
    assert {clients: life[-1] for clients, life in lives(made).items()} == {
        (2,): ("forgotten", 7),
        (4,): ("forgotten", 10),
    }
    assert [r.attempts for r in made.strategy.requests] == [1, 1]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_is_no_numbers_is_taken_back_at_once(tmp_path, step, enabled):
    class Leaping(ThreeRounds):
        def combine(self, round):
            made = super().combine(round)
            return made * math.inf if round.forgets and round.plan.step == step else made

    made = Living(tmp_path, guard={"enabled": enabled}, rounds=5)
    made.at_round(1, lambda: made.ask(2))
    made.serve(Leaping)
    assert lives(made)[2,][-1] == ("refused", 2 + step)
    assert bits(made.weights(2 + step)) == bits(made.weights(1))
    last = made.checkpoints.rounds()[-1]
    assert made.strategy.counted == 1 + last - (2 + step)
    (record,) = made.ledger.requests(LIVE_BRANCH)
    why = made.ledger.life(LIVE_BRANCH, record.id)[-1].detail
    assert why == "rolled back by the guard: the weights are not finite"


def test_the_quality_before_is_that_of_the_model_before(tmp_path):
    """Where nobody can measure without the clients to forget, the last one known is: not of a round between."""
    measured = {1: 50.0, 2: 5.0, 3: 5.0, 4: 45.0}
    made = Living(tmp_path, guard={"max-drop": 10}, evaluation=Scripted(lambda t, _: measured.get(t, 50.0)))
    made.evaluation.without = lambda clients, round, state: {}
    made.at_round(1, lambda: made.ask(2))
    made.serve(ThreeRounds)
    assert made.strategy.requests[0].reference == 50.0


# -- clients that go away ----------------------------------------------------------------------------------


def test_a_client_that_fails_once_is_asked_again_for_the_same_round_of_it(tmp_path):
    made = Living(tmp_path)
    made.clients.fault = only(LOST, client=2, rounds=[3])
    made.at_round(1, lambda: made.ask(2))
    made.serve(ThreeRounds)
    train = (0, 1, 3, 4, 5)
    check(made, [(EVERYONE, (), 0), (train, (2,), 0), None, (train, (2,), 1), (train, (2,), 2)])
    assert lives(made)[2,][2:] == [
        *[("unlearning", 3), ("waiting", 3), ("scheduled", 4)],
        *[("unlearning", 4), ("unlearning", 5), ("recovering", 5), ("forgotten", 5)],
    ]


def away(folder, **options):
    """Let client 2 ask after round 1 and be gone once the first round of its unlearning is done."""
    made = Living(folder, roaming=True, **options)
    made.at_round(1, lambda: made.ask(2))
    made.at_round(2, lambda: made.grid.present.discard(2))
    return made


def test_who_goes_away_in_the_middle_holds_up_nobody(tmp_path):
    """It is broken off: others train on from the model before it, are forgotten, and it begins anew once back."""
    made = away(tmp_path, rounds=9)
    made.at_round(4, lambda: made.ask(4))
    made.at_round(6, lambda: (made.grid.present.add(2), made.clock.pause(10)))
    made.serve(ThreeRounds)
    train, fewer = (0, 1, 3, 4, 5), (0, 1, 3, 5)
    assert bits(made.weights(3)) == bits(made.weights(2)), "nobody knows yet whether it is back in a moment"
    found = lives(made)
    assert found[4,] == [
        ("scheduled", 5),
        *(("unlearning", t) for t in (5, 6, 7)),
        *[("recovering", 7), ("forgotten", 7)],
    ]
    assert found[2,] == [
        *[("scheduled", 2), ("unlearning", 2), ("unlearning", 3), ("waiting", 3), ("scheduled", 8)],
        *(("unlearning", t) for t in (8, 9, 10)),
        *[("recovering", 10), ("forgotten", 10)],
    ]
    after = [
        (train, (), 0),
        *[(fewer, (4,), step) for step in (0, 1, 2)],
        *[(fewer, (2,), step) for step in (0, 1, 2)],
    ]
    check(made, [(EVERYONE, (), 0), (train, (2,), 0), 1, *after], rounds=range(4, 11))
    assert made.ledger.check_trail(LIVE_BRANCH) == []


def test_withdrawn_while_it_waits_nothing_of_it_stays(tmp_path, monkeypatch):
    """Even if that is the last thing that happens: the federation ends with a model that has not half forgotten."""
    made = away(tmp_path)

    def withdraw(conduct, current, *rest):
        if current.plan.round == 3:
            (record,) = made.ledger.requests(LIVE_BRANCH)
            made.intake.withdraw(record.id, actor="operator:test")

    monkeypatch.setattr(LiveConduct, "completed", withdraw)
    made.serve(ThreeRounds)
    assert lives(made)[2,][-2:] == [("waiting", 3), ("withdrawn", 3)]
    train = (0, 1, 3, 4, 5)
    check(made, [(EVERYONE, (), 0), (train, (2,), 0), 1, (train, (), 0)], rounds=[4])
    assert made.strategy.counted == 2
    assert made.checkpoints.rounds()[-1] == 4


def test_after_the_deadline_nothing_of_it_stays_either(tmp_path):
    made = away(tmp_path, rules={"deadline": 20})
    made.serve(ThreeRounds)
    assert lives(made)[2,][-1][0] == "excluded"
    last = made.checkpoints.rounds()[-1]
    train = (0, 1, 3, 4, 5)
    story = [(EVERYONE, (), 0), (train, (2,), 0), 1, *[(train, (), 0)] * (last - 3)]
    check(made, story, rounds=range(4, last + 1))


def test_nothing_is_measured_for_the_guard_between_first_and_last(tmp_path, monkeypatch):
    asked = []
    reference = LiveConduct.reference

    def noting(self, plan, docket, model, *, round):
        asked.append((plan.round, round, bits(model.vector)))
        return reference(self, plan, docket, model, round=round)

    monkeypatch.setattr(LiveConduct, "reference", noting)
    made = Living(tmp_path)
    made.at_round(1, lambda: made.ask(2))
    made.serve(ThreeRounds)
    assert asked == [(2, 1, bits(made.weights(1))), (4, 1, bits(made.weights(1)))]


@pytest.mark.parametrize("round", [2, 3, 4])
def test_a_round_of_it_that_misses_its_quorum_is_repeated_and_nothing_else_is_changed(tmp_path, round):
    def served(folder, lost):
        folder.mkdir()
        made = Living(folder, roaming=True, quorum=0.7)
        made.at_round(1, lambda: made.ask(2))
        left = [len(lost)]

        def fault(t, client, kind):
            if t == round and client in lost and kind == TRAIN and left[0]:
                left[0] -= 1
                return LOST
            return None

        made.clients.fault = fault
        return made.serve(ThreeRounds)

    repeated, whole = served(tmp_path / "repeated", (0, 1)), served(tmp_path / "whole", ())
    assert repeated.clients.of_round(round, FORGET) == [2, 2]
    for t in whole.checkpoints.rounds():
        one, other = repeated.checkpoints.load(t), whole.checkpoints.load(t)
        assert bits(one.vector) == bits(other.vector)
        assert one.meta.keys() == other.meta.keys()
