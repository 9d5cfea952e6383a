"""A live server that dies between any two of its steps: the next one loses nothing and repeats nothing."""

from collections import Counter

import pytest

from fedunlearn.federation.answers import FORGET
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.live.nodes import Nodes
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.live.stored_updates import StoredUpdates
from fedunlearn.requests import LIVE_BRANCH, FencedError, Ledger
from fedunlearn.server.history import History
from fedunlearn.strategies.puf import PUF
from tests.federation.contributions import bits
from tests.live.living import Living, Scripted
from tests.server.momentum import ServerMomentum
from tests.server.three_rounds import ThreeRounds
from tests.server.tiny import Clients, initial_state, raising, update_of
from tests.simulation.remembering import Remembering, Returning

ROUNDS = 7
ENDS = {
    (1,): "forgotten",
    (2,): "refused",
    (3,): "forgotten",
    (4,): "forgotten",
}
"""What becomes of the requests below, whenever they are served."""


class Killed(BaseException):
    """What no handler of ours may catch, like the end of a process."""


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def fault(round, client, kind):
    """Fail for reasons that are there again after a restart; client 2 wants to ruin the model."""
    if kind == FORGET and client == 2:
        return lambda update, n: (type(update)(update.vector * 1e6, update.buffers), n)
    if (round, client) in ([(3, 3), (4, 3)] if kind == FORGET else [(1, 0), (5, 0), (6, 0)]):
        return raising(OSError("lost"))
    return None


def later_fault(round, client, kind):
    """Fail where an unlearning of three rounds is in the middle, and no longer where nobody else is there."""
    if (round, client, kind) == (6, 3, FORGET):
        return raising(OSError("lost"))
    return fault(round, client, kind) if round < 5 else fault(round - 3, client, kind)


def quality(round, state):
    """Return a quality that only a ruined model lacks, or one in round 5."""
    return 0.0 if float(state.vector.norm()) > 30 else 20.0 if round == 5 else 50.0


def living(folder, ledger=None, kind=PUF):
    """Open what is on the disk: a server that knows nothing yet."""
    made = Living(
        folder,
        rules={"store-updates": True, "offline": "stored"},
        guard={"max-drop": 40, "max-norm": 1000},
        clients=Clients(later_fault if kind is ThreeRounds else fault),
        evaluation=Scripted(quality),
        ledger=ledger,
        rounds=ROUNDS,
        roaming=True,
        quorum=0.3,
    )

    def ask(client):
        made.intake.ask([client], source="http", actor="operator:a", idempotency_key=f"k{client}")

    made.at_round(1, lambda: (ask(1), ask(2)))
    made.at_round(2, lambda: (ask(3), made.grid.present.discard(5)))
    made.at_round(4, lambda: (ask(4), made.grid.present.discard(4), made.grid.present.add(5)))
    return made


POINTS = [
    (LiveConduct, "begins"),
    (LiveConduct, "next_round"),
    (Nodes, "refresh"),
    (LiveDocket, "plan"),
    (LiveDocket, "_carry_out"),
    (LiveDocket, "begin"),
    (LiveDocket, "record_failures"),
    (LiveConduct, "forgetting"),
    (LiveConduct, "reference"),
    (StoredUpdates, "keep"),
    (LiveConduct, "objection"),
    (LiveDocket, "apply"),
    (LiveConduct, "learn"),
    (LiveConduct, "save"),
    (LiveDocket, "reconcile"),
    (LiveConduct, "completed"),
]


def within(folder, name):
    """Make a folder."""
    made = folder / name
    made.mkdir()
    return made


def die_at(monkeypatch, owner, name, nth, *, after):
    """Die before or after the nth call of a method."""
    original = getattr(owner, name)
    left = [nth]

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        result = original(*args, **kwargs)
        if left[0] == 0:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, call)


KINDS = {
    PUF: {False: (1, 3, 5, 7), True: (2, 4, 6, 8)},
    ThreeRounds: {False: (3, 6, 7), True: (2, 4, 5)},
}
"""Strategy → the calls at which a server dies, before them or after."""


@pytest.mark.quick(after=1, kind=1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), POINTS, ids=[name for _, name in POINTS])
def test_killed_there_in_any_round_everybody_gets_what_they_asked_for(tmp_path, owner, name, after, kind):
    killed = 0
    for nth in (1,) if name == "begins" else KINDS[kind][after]:
        folder = tmp_path / str(nth)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, owner, name, nth, after=after)
            made = living(folder, kind=kind)
            try:
                made.serve(kind)
            except Killed:
                killed += 1
        again = living(folder, made.ledger, kind)
        again.grid.present -= {5} if made.checkpoints.rounds()[-1:] < [4] else {4}
        again.grid.present |= {4} if made.checkpoints.rounds()[-1:] < [4] else {5}
        again.serve(kind)
        check(again, tmp_path / f"replay-{nth}", kind)
    assert killed >= {"begins": 1, "objection": 1}.get(name, 2)


def check(made, place, kind=PUF):
    """Everybody in the right end state, nobody unlearned twice, and the record gives the same bits."""
    records = made.ledger.requests(LIVE_BRANCH)
    assert {r.clients: r.state for r in records} == ENDS
    plans = {p.round: p.plan for p in made.ledger.plans(LIVE_BRANCH)}
    applied = Counter(k for r in records if r.unlearned_round for k in plans[r.unlearned_round]["forget"])
    assert set(applied) == {1, 3, 4}
    assert made.ledger.check_trail(LIVE_BRANCH) == []
    place.mkdir()
    replayed = living(place, kind=kind)
    replayed.on_report = lambda report: None  # nobody asks for anything, and everybody is there
    replayed.ledger.load(LIVE_BRANCH, made.ledger.export(LIVE_BRANCH))
    replayed.serve(kind)
    assert replayed.checkpoints.rounds() == made.checkpoints.rounds()
    for t in made.checkpoints.rounds():
        assert bits(replayed.weights(t)) == bits(made.weights(t)), f"round {t}"
    assert made.checkpoints.load(t).before is None


def test_the_story_is_worth_interrupting(tmp_path):
    """A shared step rolled back, one held and tried again, one forgotten while away: else nothing is tested above."""
    made = living(tmp_path).serve()
    check(made, tmp_path / "replay")
    plans = {p.round: p for p in made.ledger.plans(LIVE_BRANCH)}
    assert plans[2].plan["forget"] == [1, 2]
    assert bits(made.weights(2)) == bits(made.weights(1))
    assert any("stored" in p.plan for p in plans.values())
    assert any(set(p.failed) & set(p.plan["forget"]) for p in plans.values())
    assert any(set(p.failed) & set(p.plan["train"]) for p in plans.values())


def test_so_is_that_of_an_unlearning_of_three_rounds(tmp_path):
    made = living(tmp_path, kind=ThreeRounds).serve(ThreeRounds)
    check(made, tmp_path / "replay", ThreeRounds)
    plans = {p.round: p for p in made.ledger.plans(LIVE_BRANCH)}
    assert plans[4].plan["forget"] == [1, 2] and plans[4].plan["step"] == 2
    assert bits(made.weights(4)) == bits(made.weights(1)), "the guard takes back all three"
    assert plans[6].plan["step"] == plans[7].plan["step"] == 1 and 3 in plans[6].failed
    assert "stored" in plans[7].plan


# -- a strategy with something to keep ------------------------------------------------------------------------


class Ruinous(Remembering):
    """Ruins the model where it forgets client 2, having noted in the history that all updates are none."""

    def combine(self, round):
        made = super().combine(round)
        return 1e4 * made if 2 in round.plan.forget else made


METHODS = {"momentum": ServerMomentum, "history": Ruinous, "last results": Returning}
"""Strategies that go on with what they, or the server, have kept."""


def everything_kept(made):
    """Return what the history holds: (round, client) → numbers, and round → weights."""
    history = made.strategy.history
    results = {(t, k): history.result(t, k) for t in history.rounds() for k in history.clients(t)}
    kept = {at: (result.num_examples, bits(result.delta)) for at, result in results.items()}
    if history.keeps is not None and history.keeps.models:
        kept |= {t: bits(history.model(t)) for t in history.rounds()}
    return kept


def served_again(made, place, kind):
    """Serve what the ledger of another federation has on record, from the beginning and without interruption."""
    replayed = living(place)
    replayed.on_report = lambda report: None
    replayed.ledger.load(LIVE_BRANCH, made.ledger.export(LIVE_BRANCH))
    return replayed.serve(kind)


@pytest.mark.quick(after=1)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["save", "completed", "objection", "learn"])
def test_killed_in_any_round_a_strategy_goes_on_with_what_it_keeps(tmp_path, name, after, method):
    """Client 2's step is rolled back by the guard, and the velocity with it."""
    kind = METHODS[method]
    for nth in (1,) if name == "objection" else (2, 4):
        folder = within(tmp_path, str(nth))
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, LiveConduct, name, nth, after=after)
            made = living(folder)
            with pytest.raises(Killed):
                made.serve(kind)
        same_as_on_record(living(folder, made.ledger).serve(kind), tmp_path / f"replay-{nth}", kind)


@pytest.mark.parametrize("method", ["history", "last results"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["record", "_stage", "publish", "settle", "restore", "begin"])
def test_killed_while_the_history_is_written_nothing_of_it_is_lost(tmp_path, name, after, method):
    killed = 0
    for nth in (1,) if name == "restore" else (2, 4, 7):
        folder = within(tmp_path, str(nth))
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, History, name, nth, after=after)
            made = living(folder)
            try:
                made.serve(METHODS[method])
            except Killed:
                killed += 1
        again = living(folder, made.ledger).serve(METHODS[method])
        same_as_on_record(again, tmp_path / f"replay-{nth}", METHODS[method])
        assert not list(folder.rglob("history/**/.*"))
    assert killed


def same_as_on_record(made, place, kind):
    """The record gives the same bits, of the weights and of what the strategy keeps."""
    replayed = served_again(made, within(place.parent, place.name), kind)
    for t in made.checkpoints.rounds():
        assert bits(replayed.weights(t)) == bits(made.weights(t)), f"round {t}"
    assert getattr(replayed.strategy, "steps", 0) == getattr(made.strategy, "steps", 0)
    assert everything_kept(replayed) == everything_kept(made)


@pytest.mark.parametrize("method", ["momentum", "history"])
def test_and_what_it_keeps_is_rolled_back_with_a_step(tmp_path, method):
    whole = living(tmp_path).serve(METHODS[method])
    records = whole.ledger.requests(LIVE_BRANCH)
    assert [r.clients for r in records if r.state == "refused"] == [(2,)]
    if method == "momentum":
        last = whole.checkpoints.rounds()[-1]
        assert whole.strategy.steps < last, "a step that was rolled back is not counted"
        return
    (after,) = [r.unlearned_round for r in records if r.clients == (3,)]
    assert after == 3, "client 3 is forgotten right after a step that noted that its updates are none"
    assert not whole.strategy.history.result(1, 3).delta.any(), "and now they are: that step stands"
    moved = whole.weights(2) - update_of(initial_state().vector, 1, 3) / 10
    assert bits(whole.weights(3)) == bits(moved)


@pytest.mark.parametrize("where", ["in the middle of a round", "when it is saved", "before it has begun"])
def test_a_server_that_was_replaced_changes_nothing_of_its_successors_history(tmp_path, monkeypatch, where):
    """What is stale to it, or later than the checkpoint that it has seen, is what its successor has written."""
    made = living(tmp_path)
    made.ledger.take_lease(LIVE_BRANCH, "replaced", seconds=0.001)
    left = {}

    def take_over(*args, **kwargs):
        patch.undo()
        with Ledger(tmp_path / "requests.sqlite", clock=made.clock) as ledger:
            ledger.take_lease(LIVE_BRANCH, "successor", seconds=1, wait=5)
            other = living(tmp_path, ledger)
            other.on_report = lambda report: None
            other.serve(Returning)
            left.update(contents(made.history))
        return

    def then(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            take_over()
            return result

        patch.setattr(owner, name, call)

    with monkeypatch.context() as patch:
        if where == "before it has begun":
            made.serve(Returning, rounds=2)
            seen = made.checkpoints.latest()
            take_over()
            patch.setattr(made.checkpoints, "latest", lambda: seen)
        else:
            made.at_round(
                2,
                lambda: then(*((LiveConduct, "save") if where == "when it is saved" else (History, "begin"))),
            )
        with pytest.raises(FencedError):
            made.serve(Returning)
    assert len(left) > 5
    assert {
        path: content for path, content in contents(made.history).items() if path.suffix != ".tmp"
    } == left


def contents(folder):
    """Return path → content of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
