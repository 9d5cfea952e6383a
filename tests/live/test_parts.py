"""A live federation that is asked for parts of clients' data: whose they are goes on with the rest."""

import json

import pytest
import torch

from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.parts import Assignment, Part
from fedunlearn.requests import LIVE_BRANCH, NEVER_TOOK_PART, NOTHING_OF_IT
from fedunlearn.server.plan import RoundPlan
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from tests.live.living import Living
from tests.server.tiny import NUM_CLIENTS, Clients

EVERYBODY = list(range(NUM_CLIENTS))
FIRST = NUM_CLIENTS
"""The number of the first part that anybody names."""


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Assigned(Clients):
    """Clients that remember what they were assigned, by (round, kind, client)."""

    def _train(self, message, context):
        config = message.content["config"]
        if "assignment" in config:
            key = int(config["round"]), message.metadata.message_type, self.number(context)
            self.__dict__.setdefault("assigned", {})[key] = Assignment.loads(config["assignment"])
        return super()._train(message, context)


def living(folder, fault=lambda round, client, kind: None, **options):
    return Living(folder, clients=Assigned(fault), rounds=options.pop("rounds", 5), **options)


def ask(federation, clients, **wanted):
    return federation.intake.ask(clients, **wanted, source="cli", actor="operator:test").request_id


def asked_after(federation, round, clients, **wanted):
    """Let somebody ask once a round is complete, and return where the request's id will be."""
    found = []
    federation.at_round(round, lambda: found.append(ask(federation, clients, **wanted)))
    return found


def at_its_forgetting(round, client, fault):
    return lambda t, k, kind: fault if (t, k, kind) == (round, client, FORGET) else None


def nothing(update, num_examples):
    return update, 0


def plan_of(federation, round):
    return RoundPlan.from_dict(federation.ledger.plan(LIVE_BRANCH, round).plan)


def detail(federation, request):
    return [e.detail for e in federation.ledger.audit(LIVE_BRANCH) if e.request_id == request][-1]


@pytest.mark.parametrize(("kind", "end"), [(PUF, "forgotten"), (Natural, "excluded")])
def test_its_client_goes_on_with_the_rest(tmp_path, kind, end):
    federation = living(tmp_path)
    request = asked_after(federation, 1, [2], samples=0.5)
    federation.serve(kind)
    assert federation.life(request[0])[-1] == (end, 2)
    part = Part(FIRST, 2, 0.5)
    assigned = federation.clients.assigned
    if kind is PUF:
        assert plan_of(federation, 2).forget == (FIRST,) and federation.clients.of_round(2) == [2]
        assert assigned.pop((2, FORGET, 2)) == Assignment(2, part)
    for round in range(3, 6):
        assert federation.clients.of_round(round, TRAIN) == EVERYBODY
        assert plan_of(federation, round).without == {2: (FIRST,)}
        assert assigned.pop((round, TRAIN, 2)) == Assignment(2, None, (part,))
    assigned.pop((2, TRAIN, 2), None)
    assert assigned == {}, "nobody else is told anything"


def test_a_server_started_anew_goes_on_leaving_it_out(tmp_path):
    federation = living(tmp_path)
    asked_after(federation, 1, [2], classes=[1])
    federation.serve(rounds=3)
    again = living(tmp_path, ledger=federation.ledger).serve()
    assert again.clients.assigned[5, TRAIN, 2] == Assignment(2, None, (Part(FIRST, 2, None, (1,)),))


def test_a_part_without_rows_ends_with_nothing_unlearned(tmp_path):
    federation = living(tmp_path, at_its_forgetting(2, 2, nothing))
    request = asked_after(federation, 1, [2], classes=[9])
    federation.serve()
    assert federation.life(request[0]) == [
        ("received", None),
        ("scheduled", 2),
        ("unlearning", 2),
        ("excluded", 2),
    ]
    assert detail(federation, request[0]) == NOTHING_OF_IT
    assert torch.equal(federation.weights(1), federation.weights(2))
    assert federation.ledger.check_trail(LIVE_BRANCH) == []
    again = living(tmp_path, ledger=federation.ledger).serve()  # the checkpoint says the same
    assert again.state(request[0]) == "excluded"


def test_of_everyone_who_has_some_is_forgotten(tmp_path):
    federation = living(tmp_path, lambda t, k, kind: nothing if kind == FORGET and k != 3 else None)
    request = asked_after(federation, 1, None, classes=[1])
    federation.serve()
    assert federation.life(request[0])[-1] == ("forgotten", 2)
    assert plan_of(federation, 2).forget == tuple(range(FIRST, FIRST + NUM_CLIENTS))
    assert federation.clients.of_round(2, FORGET) == EVERYBODY
    assert set(federation.report(2).coefficients) == {FIRST + 3}
    assert len(plan_of(federation, 3).without) == NUM_CLIENTS, "nobody is the last: all go on with the rest"


def test_a_part_that_the_model_never_learned_from(tmp_path):
    """Asked before its client's first round, it is left out of all of them: there is nothing to forget, ever."""
    federation = living(tmp_path)
    first = ask(federation, [2], samples=[0, 1])
    later = asked_after(federation, 2, [2], samples=[0, 1])
    more = asked_after(federation, 3, [2], samples=[0, 1, 2])
    federation.serve()
    assert [federation.state(r) for r in (first, *later, *more)] == ["excluded", "excluded", "forgotten"]
    assert detail(federation, first) == detail(federation, later[0]) == NEVER_TOOK_PART
    assert plan_of(federation, 1).without == {2: (FIRST,)}
    assert federation.clients.assigned[4, FORGET, 2].without == (Part(FIRST, 2, (0, 1)),), (
        "only the row it learned from"
    )


def test_what_is_forgotten_is_not_forgotten_with_its_client_again(tmp_path):
    federation = living(tmp_path)
    asked_after(federation, 1, [2], samples=0.5)
    whole = asked_after(federation, 2, [2])
    after = asked_after(federation, 3, [2], classes=[0])
    federation.serve()
    assert federation.clients.assigned[3, FORGET, 2] == Assignment(2, None, (Part(FIRST, 2, 0.5),))
    assert federation.state(whole[0]) == "forgotten" and federation.state(after[0]) == "duplicate"
    assert federation.clients.of_round(4) == [0, 1, 3, 4, 5]


def test_asked_with_its_client_in_one_round_it_is_forgotten_with_it(tmp_path):
    federation = living(tmp_path)
    part = asked_after(federation, 1, [2], samples=0.5)
    whole = asked_after(federation, 1, [2])
    federation.serve()
    assert plan_of(federation, 2).forget == (2,) and plan_of(federation, 2).without == {}
    assert federation.state(part[0]) == federation.state(whole[0]) == "forgotten"


def test_rows_of_two_parts_in_one_round_are_forgotten_once(tmp_path):
    federation = living(tmp_path)
    asked_after(federation, 1, [2], samples=[0, 1])
    asked_after(federation, 1, [3], samples=[0])
    federation.serve(rounds=1)
    asked = federation.intake.ask([2], samples=[1, 2], source="cli", actor="operator:test")
    assert asked.same_as is None
    parts = federation.ledger.parts(LIVE_BRANCH)
    assert parts.without((), (FIRST, FIRST + 1, FIRST + 2), (), ()) == {FIRST + 2: (FIRST,)}


def test_while_its_client_is_away_it_waits(tmp_path):
    federation = living(tmp_path, roaming=True)
    federation.at_round(1, lambda: federation.grid.present.remove(2))
    request = asked_after(federation, 1, [2], samples=0.5)
    federation.at_round(3, lambda: federation.grid.present.add(2))
    federation.serve()
    assert federation.life(request[0]) == [
        *(("received", None), ("waiting", 2), ("scheduled", 4)),
        *(("unlearning", 4), ("recovering", 4), ("forgotten", 4)),
    ]


def test_a_stored_update_does_not_stand_in_for_a_part(tmp_path):
    rules = {"offline": "stored", "store-updates": True}
    federation = living(tmp_path, roaming=True, rules=rules)
    federation.at_round(1, lambda: federation.grid.present.remove(2))
    request = asked_after(federation, 1, [2], samples=0.5)
    federation.at_round(3, lambda: federation.grid.present.add(2))
    federation.serve()
    assert federation.life(request[0])[1:3] == [("waiting", 2), ("scheduled", 4)]
    said = [e.detail for e in federation.ledger.audit(LIVE_BRANCH) if e.to_state == "waiting"]
    assert said == [
        "a client cannot be reached, and its stored update covers more than what is to be forgotten"
    ]
    assert all(not plan_of(federation, round).stored for round in range(1, 6))


def test_a_client_is_not_forgotten_by_an_update_from_before_its_part_was(tmp_path):
    """Stored in round 1, the part forgotten in round 2, the client gone from then on: the update holds the part."""
    rules = {"offline": "stored", "store-updates": True}
    federation = living(tmp_path, roaming=True, rules=rules)
    asked_after(federation, 1, [2], samples=0.5)
    federation.at_round(2, lambda: federation.grid.present.remove(2))
    whole = asked_after(federation, 2, [2])
    federation.at_round(4, lambda: federation.grid.present.add(2))
    federation.serve()
    assert federation.life(whole[0])[1:3] == [("waiting", 3), ("scheduled", 5)]
    assert plan_of(federation, 5).stored == {} and plan_of(federation, 5).forget == (2,)


def test_by_a_later_update_it_is(tmp_path):
    rules = {"offline": "stored", "store-updates": True}
    federation = living(tmp_path, roaming=True, rules=rules)
    asked_after(federation, 1, [2], samples=0.5)
    federation.at_round(3, lambda: federation.grid.present.remove(2))
    whole = asked_after(federation, 3, [2])
    federation.serve()
    assert plan_of(federation, 4).stored == {2: 3} and federation.state(whole[0]) == "forgotten"


def test_left_out_for_being_away_it_stays_left_out(tmp_path):
    federation = living(tmp_path, roaming=True, rules={"offline": "exclude"})
    federation.at_round(1, lambda: federation.grid.present.remove(2))
    request = asked_after(federation, 1, [2], samples=0.5)
    federation.at_round(2, lambda: federation.grid.present.add(2))
    federation.serve()
    assert federation.life(request[0])[-1][0] == "excluded"
    assert plan_of(federation, 4).without == {2: (FIRST,)} and 2 in plan_of(federation, 4).train


def test_a_client_that_fails_at_it_is_asked_again(tmp_path):
    def fails(update, num_examples):
        raise OSError("lost")

    federation = living(tmp_path, at_its_forgetting(2, 2, fails))
    request = asked_after(federation, 1, [2], samples=0.5)
    federation.serve()
    record = federation.ledger.plan(LIVE_BRANCH, 2)
    assert list(record.failed) == [FIRST]
    assert federation.state(request[0]) == "forgotten"
    assert federation.ledger.request(LIVE_BRANCH, request[0]).unlearned_round > 2


def test_executed_from_the_record_it_is_the_same(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    federation = living(tmp_path / "one", at_its_forgetting(4, 1, nothing))
    asked_after(federation, 1, None, classes=[1])
    asked_after(federation, 3, [1], samples=[7])
    federation.serve()
    again = living(tmp_path / "two", at_its_forgetting(4, 1, nothing))
    again.ledger.load(LIVE_BRANCH, json.loads(json.dumps(federation.ledger.export(LIVE_BRANCH))))
    again.serve()
    assert federation.clients.assigned == again.clients.assigned
    last = federation.checkpoints.latest().round
    assert again.checkpoints.latest().round == last
    for round in range(1, last + 1):
        assert torch.equal(federation.weights(round), again.weights(round))
    assert federation.checkpoints.load(last).meta == again.checkpoints.load(last).meta
