"""A live federation: requests arrive while it runs, clients come and go, and nothing is lost."""

import logging
from itertools import pairwise

import pytest
import torch

from fedunlearn.errors import OutOfMemoryError
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.requests import LIVE_BRANCH, NEVER_TOOK_PART, TRANSITIONS, FencedError, Ledger
from fedunlearn.server.rounds import QuorumMissedError
from fedunlearn.strategies.natural import Natural
from tests.federation.contributions import bits
from tests.live.living import Living, Scripted
from tests.server.tiny import Clients, only, raising

LOST = raising(OSError("lost"))


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    # Power cuts are for tests/requests; here a file is enough.
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def test_received_to_forgotten(tmp_path):
    living = Living(tmp_path)
    asked = []
    living.at_round(1, lambda: asked.append(living.ask(2)))
    living.serve()
    (request,) = asked
    assert living.life(request) == [
        ("received", None),
        ("scheduled", 2),
        ("unlearning", 2),
        ("recovering", 2),
        ("forgotten", 2),
    ]
    assert living.clients.of_round(2, FORGET) == [2]
    assert living.clients.of_round(3) == [0, 1, 3, 4, 5]
    assert max(r.round for r in living.reports) == 3


def test_it_goes_on_after_its_rounds_until_nothing_is_open(tmp_path):
    living = Living(tmp_path, evaluation=Scripted(lambda t, _: 50.0 if t != 4 else 10.0))
    living.at_round(3, lambda: living.ask(2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert (record.state, record.unlearned_round, record.ended_round) == ("forgotten", 4, 5)


def test_what_arrives_after_the_end_is_served_by_the_next_server(tmp_path):
    living = Living(tmp_path).serve()
    request = living.ask(2)
    living.serve()
    assert living.life(request)[-1] == ("forgotten", 4)
    living.serve()
    assert [r.round for r in living.reports] == [0, 1, 2, 3, 4]


def test_clients_that_never_appear_are_named_after_a_minute_and_at_the_end(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    living = Living(tmp_path, roaming=True, rounds=6)
    living.grid.present = {0, 1, 2}

    def later(seconds, *appear):
        living.clock.now += seconds
        living.grid.present |= set(appear)

    living.at_round(1, lambda: later(59))
    living.at_round(2, lambda: later(2))
    living.at_round(3, lambda: later(100, 3, 4))
    living.at_round(4, lambda: living.grid.present.discard(0))  # it has been there
    living.at_round(5, lambda: later(100))
    living.serve()
    said = [record.getMessage() for record in caplog.records if "never appeared" in record.getMessage()]
    assert said == ["clients 3, 4 and 5 have never appeared", "client 5 has never appeared"]


def test_nobody_is_missing_where_all_have_appeared(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    for name, roaming in (("nodes", True), ("engine", False)):
        (tmp_path / name).mkdir()
        living = Living(tmp_path / name, roaming=roaming)
        living.at_round(1, lambda clock=living.clock: clock.pause(100))
        living.serve()
    assert "never appeared" not in caplog.text


def test_the_reference_is_the_quality_before_the_request(tmp_path):
    quality = {0: 10, 1: 40, 2: 60, 3: 20, 4: 59, 5: 60}
    living = Living(tmp_path, evaluation=Scripted(lambda t, _: float(quality[t])), max_rounds=9)
    living.at_round(2, lambda: living.ask(2))
    living.serve()
    (progress,) = living.strategy.requests
    assert (progress.reference, progress.ended_round, progress.outcome) == (60.0, 5, "recovered")


@pytest.mark.parametrize(
    ("during", "unlearned", "outcome"), [("wait", 6, "recovered"), ("join", 4, "superseded")]
)
def test_during_a_recovery(tmp_path, during, unlearned, outcome):
    """Who joins takes over the recovery, and what it is to reach: not the model in the middle of it."""
    quality = {0: 10, 1: 40, 2: 60, 3: 20, 4: 30, 5: 60, 6: 61}
    living = Living(
        tmp_path,
        rules={"during-recovery": during},
        evaluation=Scripted(lambda t, _: float(quality.get(t, 61))),
        max_rounds=9,
    )
    living.at_round(2, lambda: living.ask(2))
    living.at_round(3, lambda: living.ask(4))
    living.serve()
    first, second = living.strategy.requests
    assert (first.outcome, second.unlearned_round) == (outcome, unlearned)
    assert second.reference == 60.0
    for t in range(4, unlearned):
        assert 4 not in living.clients.of_round(t), "asked to be forgotten, it does not train meanwhile"


def test_a_window_gathers_requests(tmp_path):
    living = Living(tmp_path, rules={"window": 10})
    living.at_round(1, lambda: living.ask(2))
    living.at_round(2, lambda: living.ask(4))

    def later():
        living.clock.now += 6

    for t in (1, 2, 3):
        living.at_round(t, later)
    living.serve()
    assert living.clients.of_round(2, FORGET) == []
    assert 2 not in living.clients.of_round(2)
    assert living.clients.of_round(3, FORGET) == [2, 4]
    assert living.report(3).plan.requests == tuple(r.id for r in living.ledger.requests(LIVE_BRANCH))


def test_after_its_rounds_it_waits_for_a_window_without_training(tmp_path):
    living = Living(tmp_path, rules={"window": 10})
    living.at_round(3, lambda: living.ask(2))
    living.serve()
    assert living.clock.waited > 0
    assert [r.round for r in living.reports] == [0, 1, 2, 3, 4]


def test_the_same_client_twice_is_one_request(tmp_path):
    living = Living(tmp_path)
    living.at_round(1, lambda: (living.ask(2), living.ask(2)))
    living.at_round(2, lambda: living.ask(2))
    living.serve()
    first, second, third = living.ledger.requests(LIVE_BRANCH)
    assert [r.state for r in (first, second, third)] == ["forgotten", "duplicate", "duplicate"]
    assert second.same_as == first.id
    assert living.life(second.id) == [("received", None), ("duplicate", 2)]
    assert [t for t in range(1, 4) if living.clients.of_round(t, FORGET)] == [2]


def test_it_is_served_itself_if_the_earlier_one_is_withdrawn(tmp_path):
    living = Living(tmp_path, rules={"window": 10})
    asked = []

    def twice_and_once_taken_back():
        asked.extend((living.ask(2), living.ask(2)))
        living.intake.withdraw(asked[0], actor="operator:test")

    living.at_round(1, twice_and_once_taken_back)
    living.serve()
    assert [living.state(id_) for id_ in asked] == ["withdrawn", "forgotten"]


def test_of_who_never_took_part_there_is_nothing_to_forget(tmp_path):
    """No step is taken against what it would have contributed; it is left out, and the ledger says why."""
    folders = [tmp_path / "early", tmp_path / "never"]
    for folder in folders:
        folder.mkdir()
    early, never = map(Living, folders)
    request = early.ask(2)
    for living in (early, never):
        living.serve()
    assert early.life(request) == [("received", None), ("excluded", 1)]
    assert early.ledger.audit(LIVE_BRANCH)[-1].detail == NEVER_TOOK_PART
    assert early.reports[-1].round == never.reports[-1].round, "no round for it"
    assert all(2 not in early.clients.of_round(round) for round in range(1, 4))
    again = early.ask(2)
    early.serve()
    assert early.state(again) == "excluded"


def test_with_others_only_those_are_forgotten_who_took_part(tmp_path):
    def absent_in_round_1(round, client, kind):
        if (round, client) == (1, 2):
            raise OSError("lost")
        return

    living = Living(tmp_path, clients=Clients(absent_in_round_1))
    living.at_round(1, lambda: living.ask(1, 2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert record.state == "forgotten"
    assert living.report(2).plan.forget == (1,)
    assert {1, 2}.isdisjoint(living.clients.of_round(3))


def test_the_last_clients_are_not_forgotten(tmp_path):
    living = Living(tmp_path)
    living.at_round(1, lambda: [living.ask(k) for k in range(6)])
    living.serve()
    states = [r.state for r in living.ledger.requests(LIVE_BRANCH)]
    assert states == ["forgotten"] * 5 + ["refused"]
    assert living.clients.of_round(3) == [5]


def test_a_withdrawn_client_trains_again(tmp_path):
    living = Living(tmp_path, rules={"window": 100})
    living.at_round(1, lambda: living.ask(2))
    living.at_round(
        2, lambda: living.intake.withdraw(living.ledger.requests(LIVE_BRANCH)[0].id, actor="operator:t")
    )
    living.serve()
    assert 2 not in living.clients.of_round(2)
    assert 2 in living.clients.of_round(3)


def test_leaving_out_is_excluded_and_never_called_forgotten(tmp_path):
    living = Living(tmp_path)
    living.at_round(1, lambda: living.ask(2))
    living.serve(Natural)
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert living.life(record.id)[-1] == ("excluded", 2)
    assert 2 not in living.clients.of_round(2)


@pytest.mark.parametrize("kind", [Natural, None])
def test_every_step_is_in_the_table(tmp_path, kind):
    living = Living(tmp_path, rules={"window": 1, "during-recovery": "join"}, roaming=True, quorum=0.3)
    living.at_round(1, lambda: (living.ask(2), living.ask(2), living.ask(3), living.grid.present.discard(3)))
    living.at_round(2, lambda: (living.ask(0, 1, 2, 3, 4, 5), living.ask(4, 5), living.grid.present.add(3)))
    living.serve(*([kind] if kind else []))
    for record in living.ledger.requests(LIVE_BRANCH):
        states = [state for state, _ in living.life(record.id)]
        assert all(b in TRANSITIONS[a] for a, b in pairwise(states))
        assert record.ended


# -- clients that come and go ------------------------------------------------------------------------------


def test_who_is_away_is_not_asked_and_takes_part_again_when_back(tmp_path):
    living = Living(tmp_path, roaming=True)
    living.at_round(1, lambda: living.grid.present.discard(3))
    living.at_round(2, lambda: living.grid.present.add(3))
    living.serve()
    assert [3 in living.clients.of_round(t) for t in (1, 2, 3)] == [True, False, True]
    assert all(r.failed == {} for r in living.reports)


def test_a_node_is_asked_once_whom_it_serves(tmp_path):
    living = Living(tmp_path, roaming=True).serve()
    assert {kind for _, kind in living.grid.sent} == {TRAIN}


def test_too_few_are_waited_for(tmp_path):
    living = Living(tmp_path, roaming=True, quorum=0.5)
    living.at_round(1, lambda: living.grid.present.difference_update({0, 1, 2, 3}))
    living.clock.meanwhile = lambda: living.clock.waited > 5 and living.grid.present.add(0)
    living.serve()
    assert living.clock.waited == 6
    assert living.clients.of_round(2) == [0, 4, 5]


def test_a_round_that_misses_its_quorum_is_repeated_as_planned(tmp_path):
    """They went after it had been planned: nothing of the round counts, and it is done again once they are back."""
    living = Living(tmp_path, roaming=True, quorum=0.9)

    def leave(round, client, kind):
        if (round, client) == (2, 0):
            living.grid.present.difference_update({3, 4})

    living.clients.fault = leave
    whole = living.grid.send_and_receive

    def lossy(messages, *, timeout=None):
        for reply in whole(messages):
            if reply.metadata.src_node_id - 2 in living.grid.present:
                yield reply

    living.grid.send_and_receive = lossy

    def back():
        if len(living.grid.present) < 6:
            living.grid.present.update({3, 4})
            living.clients.fault = lambda *_: None

    living.clock.meanwhile = back
    living.serve()
    assert living.clients.of_round(2) == sorted([*range(6)] * 2)
    assert living.report(2).failed == {}


def away(living, *, back_at=None):
    """Let client 2 ask to be forgotten after round 1 and be away from then on."""
    living.at_round(1, lambda: (living.ask(2), living.grid.present.discard(2)))
    if back_at is not None:
        living.at_round(back_at, lambda: living.grid.present.add(2))
    return living.serve()


def test_who_is_away_when_it_is_to_be_forgotten_is_waited_for(tmp_path):
    living = away(Living(tmp_path, roaming=True), back_at=2)
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert living.life(record.id)[:4] == [
        ("received", None),
        ("waiting", 2),
        ("scheduled", 3),
        ("unlearning", 3),
    ]


def test_it_is_waited_for_after_the_rounds_too_until_it_is_back(tmp_path):
    living = Living(tmp_path, roaming=True)
    living.clock.meanwhile = lambda: living.clock.waited > 5 and living.grid.present.add(2)
    away(living)
    assert living.ledger.requests(LIVE_BRANCH)[0].state == "forgotten"
    assert [r.round for r in living.reports] == [0, 1, 2, 3, 4], "no round is spent on waiting"


def test_the_deadline_excludes(tmp_path):
    living = away(Living(tmp_path, roaming=True, rules={"deadline": 20}))
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert living.life(record.id) == [("received", None), ("waiting", 2), ("excluded", 3)]
    assert living.clock.waited >= 19
    request = living.ask(2)
    living.grid.present.add(2)
    living.serve()
    assert living.state(request) == "forgotten", "excluded is not forgotten: it can be asked again"
    assert 2 not in living.clients.of_round(4, TRAIN)


def test_exclude_excludes_at_once(tmp_path):
    living = away(Living(tmp_path, roaming=True, rules={"offline": "exclude"}), back_at=2)
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert living.life(record.id) == [("received", None), ("excluded", 2)]
    assert all(2 not in living.clients.of_round(t) for t in (2, 3))


def test_stored_forgets_by_the_last_update_of_who_is_away(tmp_path):
    rules = {"offline": "stored", "store-updates": True}
    living = away(Living(tmp_path, roaming=True, rules=rules))
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert (record.state, record.unlearned_round) == ("forgotten", 2)
    assert living.report(2).plan.stored == {2: 1}
    w0, w1, w2 = (torch.linspace(-1, 1, 5), living.weights(1), living.weights(2))
    from tests.server.tiny import update_of

    assert torch.allclose(w2, w1 - 2 * update_of(w0, 1, 2), atol=1e-6)


def test_stored_asks_who_is_there(tmp_path):
    rules = {"offline": "stored", "store-updates": True}
    living = Living(tmp_path, rules=rules)
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    assert living.report(2).plan.stored == {}
    assert living.clients.of_round(2, FORGET) == [2]


def test_storing_updates_changes_no_bit(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    plain, storing = Living(one), Living(other, rules={"store-updates": True})
    for living in (plain, storing):
        living.at_round(1, lambda living=living: living.ask(2))
        living.serve()
    for t in (1, 2, 3):
        assert bits(plain.weights(t)) == bits(storing.weights(t))


# -- clients that fail -------------------------------------------------------------------------------------


def test_a_client_to_forget_that_fails_is_tried_again_and_holds_up_nobody(tmp_path):
    living = Living(tmp_path, clients=Clients(only(LOST, client=2, rounds=[2])))
    living.at_round(1, lambda: living.ask(2))
    living.at_round(2, lambda: living.ask(4))
    living.serve()
    first, second = living.ledger.requests(LIVE_BRANCH)
    assert (second.unlearned_round, second.state) == (3, "forgotten")
    assert (first.unlearned_round, first.state) == (4, "forgotten")
    assert living.clock.waited > 0, "it rests before it is tried again"


def test_one_that_always_fails_never_fails_the_request(tmp_path):
    """Whoever cannot be asked is waited for, up to the deadline; the duty does not end with three errors."""
    living = Living(
        tmp_path, rules={"deadline": 60}, clients=Clients(only(LOST, client=2, rounds=range(2, 99)))
    )
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert record.state == "excluded"
    assert sum(state == "unlearning" for state, _ in living.life(record.id)) > 3


def test_a_client_without_memory_is_a_client_that_failed(tmp_path):
    full = raising(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    living = Living(tmp_path, clients=Clients(only(full, client=4, rounds=[2])))
    living.serve()
    assert list(living.report(2).failed) == [4]


def test_a_quorum_missed_where_nobody_can_be_lost_ends_the_run(tmp_path):
    living = Living(tmp_path, clients=Clients(only(LOST, client=4, rounds=[2])), quorum=1.0)
    with pytest.raises(QuorumMissedError, match=r"federation\.quorum"):
        living.serve()


# -- the guard ---------------------------------------------------------------------------------------------


def poisoned(client, factor):
    """Let a client answer its own forgetting with an update many times as long."""

    def fault(round, k, kind):
        if k == client and kind == FORGET:
            return lambda update, n: (type(update)(update.vector * factor, update.buffers), n)
        return None

    return Clients(fault)


def hurt_by(limit):
    """Return a measure that falls to 0 once the weights are far from where they started."""
    return Scripted(lambda t, state: 50.0 if float(state.vector.norm()) < limit else 0.0)


def test_a_poisoned_request_is_bounded_and_then_rolled_back(tmp_path):
    living = Living(
        tmp_path, clients=poisoned(2, 1e6), evaluation=hurt_by(5.0), guard={"max-drop": 30, "max-norm": 10}
    )
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert living.life(record.id)[-2:] == [("unlearning", 2), ("refused", 2)]
    assert record.unlearned_round is None
    assert bits(living.weights(2)) == bits(living.weights(1))
    assert living.report(2).coefficients == {}
    assert 2 not in living.clients.of_round(3), "an operator has to decide"
    said = living.ledger.audit(LIVE_BRANCH)[-1].detail
    assert said == (
        "rolled back by the guard: validation quality fell from 50.0 to 0.0 %, guard.max-drop = 30 points"
    )


def test_without_the_guard_it_does_its_harm(tmp_path):
    living = Living(tmp_path, clients=poisoned(2, 1e6), evaluation=hurt_by(5.0), guard={"enabled": False})
    living.at_round(1, lambda: living.ask(2))
    living.serve(rounds=2)
    assert float(living.weights(2).norm()) > 1e5


def test_a_bounded_step_is_as_long_as_the_bound(tmp_path):
    living = Living(tmp_path, clients=poisoned(2, 1e6), guard={"max-norm": 3})
    living.at_round(1, lambda: living.ask(2))
    living.serve(rounds=2)
    usual = sorted(float((update).norm()) for update in (_update(living, k) for k in range(6)))
    median = (usual[2] + usual[3]) / 2
    step = float((living.weights(2) - living.weights(1)).norm())
    assert step == pytest.approx(2 * 3 * median, rel=1e-5)


def _update(living, client):
    from tests.server.tiny import update_of

    return update_of(torch.linspace(-1, 1, 5), 1, client)


def test_an_honest_request_is_not_touched(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    made = [Living(one), Living(other, guard={"enabled": False})]
    for living in made:
        living.at_round(1, lambda living=living: living.ask(2))
        living.serve()
    assert bits(made[0].weights(3)) == bits(made[1].weights(3))


def test_one_poisoned_request_does_not_take_the_others_down_with_it(tmp_path):
    living = Living(
        tmp_path, clients=poisoned(2, 1e6), evaluation=hurt_by(5.0), guard={"max-drop": 30, "max-norm": 50}
    )
    living.at_round(1, lambda: [living.ask(k) for k in (1, 2, 3)])
    living.serve()
    states = {r.clients: r.state for r in living.ledger.requests(LIVE_BRANCH)}
    assert states == {(1,): "forgotten", (2,): "refused", (3,): "forgotten"}
    assert living.report(2).plan.forget == (1, 2, 3)
    assert bits(living.weights(2)) == bits(living.weights(1))


def test_a_model_that_has_diverged_is_rolled_back(tmp_path):
    living = Living(tmp_path, evaluation=Scripted(lambda t, state: None if float(state.vector.norm()) > 5 else 50.0),
                    clients=poisoned(2, 1e6), guard={"max-norm": 50})  # fmt: skip
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    assert living.ledger.requests(LIVE_BRANCH)[0].state == "refused"


def test_who_was_refused_can_ask_again(tmp_path):
    living = Living(
        tmp_path, clients=poisoned(2, 1e6), evaluation=hurt_by(5.0), guard={"max-drop": 30, "max-norm": 10}
    )
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    living.clients.fault = lambda *_: None
    request = living.ask(2)
    living.serve()
    assert living.state(request) == "forgotten"


# -- one server at a time ----------------------------------------------------------------------------------


def test_a_server_that_was_replaced_stops_and_writes_nothing(tmp_path):
    path = tmp_path / "requests.sqlite"
    living = Living(tmp_path, ledger=Ledger(path))
    living.ledger.take_lease(LIVE_BRANCH, "first", seconds=0.001)
    written = {}

    def replaced():
        other = Ledger(path)
        other.take_lease(LIVE_BRANCH, "second", wait=5)
        written.update({p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()})
        other.close()

    def late(round, client, kind):
        if (round, client) == (3, 5):
            replaced()

    living.clients.fault = late
    with pytest.raises(FencedError):
        living.serve()
    published = {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir() if p.suffix != ".tmp"}
    assert published == written
    assert [r.round for r in living.reports] == [0, 1, 2]


def test_one_that_waits_notices_too(tmp_path):
    path = tmp_path / "requests.sqlite"
    living = Living(tmp_path, ledger=Ledger(path), roaming=True)
    living.ledger.take_lease(LIVE_BRANCH, "first", seconds=0.001)
    living.at_round(1, lambda: living.grid.present.clear())

    def replaced():
        with Ledger(path) as other:
            other.take_lease(LIVE_BRANCH, "second", wait=5)

    living.clock.meanwhile = replaced
    with pytest.raises(FencedError):
        living.serve()


def test_memory_of_a_server_is_no_clients_business(tmp_path):
    """Out of memory in the evaluation ends the run, also of a live federation."""

    def full(t, state):
        raise OutOfMemoryError("evaluation: out of memory", during="evaluation")

    with pytest.raises(OutOfMemoryError):
        Living(tmp_path, evaluation=Scripted(full)).serve()


# -- a round that is repeated ------------------------------------------------------------------------------


class Killed(BaseException):
    """What no handler of ours may catch."""


def test_a_repeated_round_goes_on_without_a_client_that_answered_before(tmp_path):
    """It has left for good since: a federation may not stand still for that, as long as the record is right."""
    living = Living(tmp_path, roaming=True, clients=Clients(only(LOST, client=4, rounds=[2])))

    def die(round, state):
        if round == 2:
            raise Killed
        return 50.0

    living.evaluation = Scripted(die)
    with pytest.raises(Killed):
        living.serve()
    assert list(living.ledger.plan(LIVE_BRANCH, 2).failed) == [4]
    again = Living(tmp_path, ledger=living.ledger, roaming=True)
    again.grid.present.discard(5)
    again.serve()
    assert set(again.ledger.plan(LIVE_BRANCH, 2).failed) == {4, 5}
    assert again.clients.of_round(2) == [0, 1, 2, 3], "who had failed is not asked again"
    replayed = replay(tmp_path, again)
    assert bits(replayed.weights(3)) == bits(again.weights(3))


def replay(folder, living, **options):
    """Execute a federation's plans from the record alone."""
    place = folder / "replay"
    place.mkdir()
    made = Living(place, **options)
    made.ledger.load(LIVE_BRANCH, living.ledger.export(LIVE_BRANCH))
    return made.serve()


def test_the_record_alone_gives_the_same_weights(tmp_path):
    """Whatever was decided by the clock, by who was there or by the guard is in the record."""
    clients = Clients(only(LOST, client=0, rounds=[2, 4]))
    faults = clients.fault
    evil = poisoned(3, 1e6).fault
    clients.fault = lambda *asked: faults(*asked) or evil(*asked)
    options = {"clients": clients, "evaluation": hurt_by(8.0), "guard": {"max-drop": 30, "max-norm": 50}}
    living = Living(tmp_path, rules={"window": 3, "during-recovery": "join"}, roaming=True, **options)
    living.at_round(1, lambda: (living.ask(2), living.ask(3), living.grid.present.discard(5)))
    living.at_round(2, lambda: (living.ask(4), living.grid.present.add(5)))
    living.serve()
    assert {r.state for r in living.ledger.requests(LIVE_BRANCH)} == {"forgotten", "refused"}
    replayed = replay(tmp_path, living, **options)
    assert [r.plan for r in replayed.reports] == [r.plan for r in living.reports]
    for t in living.checkpoints.rounds():
        assert bits(replayed.weights(t)) == bits(living.weights(t))
    assert replayed.strategy.requests == living.strategy.requests
