"""PGA and FedEraser in a live federation: who is asked, who is waited for, and a server that dies in any round."""

import pytest

from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.models.layout import Layout
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.history import History
from fedunlearn.strategies.federaser import FedEraser
from fedunlearn.strategies.pga import PGA
from tests.federation.contributions import bits
from tests.live.living import Living
from tests.live.test_resume import Killed, die_at, everything_kept, within
from tests.server.tiny import Clients, initial_state, only, raising

ARCHITECTURE = Architecture(
    lambda: Layout({"a.weight": (1, 2), "a.bias": (3,)}), lambda seed: initial_state()
)
METHODS = {
    "pga": (PGA, {"radius": 1.0}),
    "federaser": (FedEraser, {}),
    "federaser, average first": (FedEraser, {"calibrate": "average-layer", "half": True, "interval": 2}),
}
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def living(folder, ledger=None):
    """Client 2 asks after round 3; client 4 while that is under way, and client 5 is away for a while."""
    fault = only(raising(OSError("lost")), client=0, rounds=[5])
    made = Living(folder, clients=Clients(fault), ledger=ledger, rounds=12, roaming=True, quorum=0.3)

    def ask(client):
        made.intake.ask([client], source="http", actor="operator:a", idempotency_key=f"k{client}")

    made.at_round(3, lambda: ask(2))
    made.at_round(4, lambda: (ask(4), made.grid.present.discard(5)))
    made.at_round(6, lambda: made.grid.present.add(5))
    return made


def serve(made, method):
    kind, options = METHODS[method]
    return made.serve(kind, architecture=ARCHITECTURE, **options)


@methods
def test_both_are_forgotten_one_after_the_other(tmp_path, method):
    made = serve(living(tmp_path), method)
    first, second = made.ledger.requests(LIVE_BRANCH)
    assert (first.clients, second.clients) == ((2,), (4,))
    assert (first.state, second.state) == ("forgotten", "forgotten")
    assert first.unlearned_round < second.unlearned_round
    assert made.ledger.check_trail(LIVE_BRANCH) == []
    assert all(2 not in made.clients.of_round(t, TRAIN) for t in range(4, 30))


def test_pga_asks_those_to_forget_and_nobody_else(tmp_path):
    made = serve(living(tmp_path), "pga")
    first, second = (r.unlearned_round for r in made.ledger.requests(LIVE_BRANCH))
    assert (made.clients.of_round(first, FORGET), made.clients.of_round(first, TRAIN)) == ([2], [])
    assert made.clients.of_round(second, FORGET) == [4]


def test_pga_waits_for_who_is_away_and_federaser_does_not(tmp_path):
    for method in ("pga", "federaser"):
        made = Living(within(tmp_path, method), rounds=4, roaming=True, quorum=0.3)
        made.at_round(2, lambda made=made: (made.grid.present.discard(4), made.ask(4)))
        made.at_round(3, lambda made=made: made.grid.present.add(4) if made.strategy.needed.online else None)
        serve(made, method)
        (record,) = made.ledger.requests(LIVE_BRANCH)
        assert record.state == "forgotten"
        asked = [a for a in made.clients.asked if a.kind == FORGET]
        assert [a.client for a in asked] == ([4] if method == "pga" else [])


def test_federaser_leaves_out_who_is_away_or_fails(tmp_path):
    made = serve(living(tmp_path), "federaser")
    plans = {p.round: p for p in made.ledger.plans(LIVE_BRANCH)}
    assert plans[4].plan["train"] == [] and plans[4].plan["completes"] is False
    assert plans[5].plan["train"] == [0, 1, 3], "2 is forgotten, 4 has asked, 5 is away"
    assert plans[5].failed.keys() == {0}
    assert made.clients.of_round(4) == []


POINTS = [
    (LiveDocket, "plan"),
    (LiveDocket, "begin"),
    (History, "_stage"),
    (History, "publish"),
    (History, "settle"),
    (LiveConduct, "save"),
    (LiveConduct, "completed"),
]


@methods
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), POINTS, ids=[name for _, name in POINTS])
def test_killed_there_it_goes_on_to_the_same_bits(tmp_path, owner, name, after, method):
    """The same as the ledger of that federation gives where nobody dies: who was away is on record there."""
    killed = 0
    for nth in (4, 5, 6, 8):
        folder = within(tmp_path, str(nth))
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, owner, name, nth, after=after)
            made = living(folder)
            try:
                serve(made, method)
            except Killed:
                killed += 1
        again = serve(living(folder, made.ledger), method)
        assert {r.state for r in again.ledger.requests(LIVE_BRANCH)} == {"forgotten"}
        replayed = living(within(tmp_path, f"replay-{nth}"))
        replayed.on_report = lambda report: None
        replayed.ledger.load(LIVE_BRANCH, again.ledger.export(LIVE_BRANCH))
        serve(replayed, method)
        for t in again.checkpoints.rounds():
            assert bits(replayed.weights(t)) == bits(again.weights(t)), f"round {t}"
        assert everything_kept(replayed) == everything_kept(again)
    assert killed >= 3
