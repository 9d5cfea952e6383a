"""Killed anywhere, a federation that is started again ends as if nothing had happened, bit for bit."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from fedunlearn.errors import RunError
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.local import LocalGrid
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.recovery import RecoveryRule, RetrainReference
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.server.momentum import ServerMomentum
from tests.server.tiny import NUM_CLIENTS, Clients, Federation, initial_state, only, raising, settings

ROUNDS = 8
FLAT = dict.fromkeys(range(1, 20), 50.0)
SETTINGS = settings(
    participation=0.7,
    quorum=0.4,
    recovery=RecoveryRule(
        until="retrain-accuracy",
        max_rounds=3,
        references={frozenset(k): RetrainReference(FLAT, 60.0) for k in [(2,), (2, 4, 5), (4, 5)]},
    ),
)


class Killed(BaseException):
    """What no handler of ours may catch, like the end of a process."""


def fault(round, client, kind):
    """Fail for reasons that are there again after a restart: a retained client, and one that is to forget."""
    return raising(OSError("lost")) if (round, client) in [(4, 4), (6, 3)] else None


def accuracy(round, state):
    """Measure the weights, as it were; in round 7 they have diverged."""
    return {} if round == 7 else {"validation-accuracy": 30.0 + 3.5 * round, "test-accuracy": 55.0 + round}


def federation(folder, ledger=None):
    """Open what is on the disk: a process that knows nothing yet."""
    made = Federation(
        settings=SETTINGS,
        clients=Clients(fault),
        start=initial_state(buffers=True),
        ledger=Ledger(folder / "requests.sqlite") if ledger is None else ledger,
        checkpoints=Checkpoints(folder / "checkpoints", "tiny"),
        measure=accuracy,
    )
    made.submit("r1", (2,), 2)
    made.submit("r2", (4, 5), 3)
    return made


def within(folder, name):
    """Make a folder."""
    made = folder / name
    made.mkdir()
    return made


def run(folder, kind, ledger=None, **options):
    """Run the federation in this folder to its end, and gather everything that it leaves behind."""
    made = federation(folder, ledger).run(kind, ROUNDS, **options)
    made.ended = {
        "files": {p.name: p.read_bytes() for p in sorted((folder / "checkpoints").iterdir())},
        "plans": made.ledger.plans("tiny"),
        "lives": {name: made.life(name) for name in ("r1", "r2")},
        "requests": [replace(r, arrived_at=0.0) for r in made.ledger.requests("tiny")],
    }
    made.ledger.close()
    return made


def before_plan(made, round):
    patch(made.ledger, "commit_plan", lambda: made.strategy.round + 1 == round)


def within_plan(made, round):
    patch(made.ledger, "commit_plan", lambda: made.strategy.round + 1 == round, after=True)


def after_plan(made, round):
    class Deadly(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages = list(messages)
            if messages[0].metadata.group_id.startswith(f"{round}/"):
                raise Killed
            return super().send_and_receive(messages, timeout=timeout)

    made.grid = Deadly(made.clients.app, NUM_CLIENTS)


def after_failures(made, round):
    patch(made.ledger, "record_failures", lambda: made.strategy.round + 1 == round, after=True)


def before_checkpoint(made, round):
    patch(made.checkpoints, "save", lambda: made.strategy.round == round)


def after_checkpoint(made, round):
    patch(made.checkpoints, "save", lambda: made.strategy.round == round, after=True)


def after_ledger(made, round):
    patch(made.ledger, "reconcile", lambda: made.strategy.round == round, after=True)


def mid_training(made, round):
    def deadly(t, client, kind):
        plan = made.ledger.plan("tiny", t).plan
        last = len(plan["train"]) + len(plan["forget"])
        if t == round and len(made.clients.of_round(t)) == last:
            raise Killed
        return fault(t, client, kind)

    made.clients.fault = deadly


def evaluating(made, round):
    def deadly(t, state):
        if t == round:
            raise Killed
        return accuracy(t, state)

    made.measure = deadly


POINTS = [
    before_plan,
    within_plan,
    after_plan,
    mid_training,
    after_failures,
    evaluating,
    before_checkpoint,
    after_checkpoint,
    after_ledger,
]


def patch(owner, name, now, *, after=False):
    """Kill the process before or after a call of a method, when ``now()`` says so."""
    original = getattr(owner, name)

    def call(*args, **kwargs):
        if now() and not after:
            raise Killed
        result = original(*args, **kwargs)
        if now() and after:
            raise Killed
        return result

    setattr(owner, name, call)


METHODS = {
    "special": (PUF, {"mode": "special"}),
    "regular": (PUF, {"mode": "regular", "scale": 5.0}),
    "natural": (Natural, {}),
    "momentum": (ServerMomentum, {}),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The same federations, left in peace."""
    return {name: run(tmp_path_factory.mktemp(name), kind, **o) for name, (kind, o) in METHODS.items()}


def test_the_story_is_worth_interrupting(uninterrupted):
    """Requests that overlap, one held, one superseded, failures, and both ends: else nothing is tested below."""
    for name in ("special", "regular", "momentum"):
        whole = uninterrupted[name]
        assert whole.progress("r1").outcome == "superseded"
        assert whole.progress("r2").attempts == 1
        assert whole.progress("r2").unlearned_round == 5
        assert whole.progress("r2").outcome == "recovered"
        assert whole.progress("r2").recovered_round_authors == 5
        assert set(whole.report(4).failed) == {4}
    for whole in uninterrupted.values():
        assert set(whole.report(6).failed) == {3}
        assert len(whole.report(2).plan.train) < 6
        assert max(whole.states) == ROUNDS


@pytest.mark.quick(method=1)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("point", POINTS, ids=lambda p: p.__name__)
def test_killed_at_this_point_of_any_round_it_ends_the_same(
    tmp_path, monkeypatch, uninterrupted, method, point
):
    # Real files and real kills are slow, and tests/requests and tests/e2e have them. What is left to show is
    # that no point is the wrong one.
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    kind, options = METHODS[method]
    whole = uninterrupted[method]
    killed = 0
    for round in range(1, ROUNDS + 1):
        folder = within(tmp_path, f"killed-{round}")
        ledger = Ledger(":memory:")
        made = federation(folder, ledger)
        patched = ledger.__dict__.copy()
        point(made, round)
        try:
            made.run(kind, ROUNDS, **options)
        except Killed:
            killed += 1
        ledger.__dict__ = patched
        resumed = run(folder, kind, ledger, **options)
        assert resumed.ended == whole.ended
        for t, state in resumed.states.items():
            assert bits(state.vector) == bits(whole.weights(t))
        again = {t: r for t in resumed.states for r in resumed.reports if r.round == t}
        for t, report in again.items():
            assert (report.plan, report.failed, report.requests) == (
                whole.report(t).plan,
                whole.report(t).failed,
                whole.report(t).requests,
            )
    # Not every round has failures, or anything to tell the ledger.
    assert killed >= {after_failures: 1, after_ledger: ROUNDS - 2}.get(point, ROUNDS)


def test_killed_over_and_over_it_still_ends_the_same(tmp_path, uninterrupted):
    kind, options = METHODS["regular"]
    for point in POINTS * 2:
        made = federation(tmp_path)
        point(made, max(made.checkpoints.rounds(), default=0) + 1)
        with suppress(Killed):
            made.run(kind, ROUNDS, **options)
        made.ledger.close()
    assert run(tmp_path, kind, **options).ended == uninterrupted["regular"].ended


def test_a_finished_federation_asks_nobody(tmp_path):
    whole = run(tmp_path, PUF)
    again = run(tmp_path, PUF)
    assert again.clients.asked == []
    assert again.ended == whole.ended
    assert again.strategy.requests == whole.strategy.requests


def test_more_rounds_go_on_from_the_last(tmp_path):
    first = federation(tmp_path)
    first.run(PUF, 5)
    first.ledger.close()
    rest = run(tmp_path, PUF)
    assert min(a.round for a in rest.clients.asked) == 6
    assert rest.ended == run(within(tmp_path, "whole"), PUF).ended


# -- the committed plan is what is executed ----------------------------------------------------------------


def killed(folder, point, round, kind=PUF, *, fault=fault):
    """Return the federation of a dead server, whose ledger can still be written to."""
    made = federation(folder)
    made.clients.fault = fault
    point(made, round)
    with pytest.raises(Killed):
        made.run(kind, ROUNDS)
    return made


def test_a_request_that_arrives_after_the_plan_waits_for_the_next_round(tmp_path):
    made = killed(tmp_path, mid_training, 1)
    (planned,) = made.ledger.plans("tiny")
    client = planned.plan["train"][0]
    made.submit("meanwhile", (client,), None)
    made.ledger.close()
    resumed = federation(tmp_path)
    resumed.settings = settings()
    resumed.run(PUF, 2)
    assert resumed.clients.of_round(1, TRAIN) == planned.plan["train"]
    assert resumed.clients.of_round(1, FORGET) == []
    assert resumed.clients.of_round(2, FORGET) == [client]


def test_a_plan_is_replayed_whatever_would_be_planned_today(tmp_path):
    made = killed(tmp_path, after_plan, 1)
    (planned,) = made.ledger.plans("tiny")
    made.ledger.close()
    resumed = federation(tmp_path)
    resumed.settings = settings(participation=1.0, quorum=0.4, seed=99)
    resumed.run(PUF, 2)
    assert resumed.clients.of_round(1) == planned.plan["train"]
    assert len(resumed.clients.of_round(2)) == 6


def test_a_client_on_record_as_failed_is_not_asked_in_the_replay(tmp_path):
    """Whether it would answer by now does not matter: the replay leaves out who was left out."""
    whole = federation(within(tmp_path, "whole"))
    whole.clients.fault = only(raising(OSError("lost")), client=0, rounds=[1])
    whole.run(Retrain, 2)
    folder = within(tmp_path, "killed")
    made = killed(folder, after_failures, 1, Retrain, fault=whole.clients.fault)
    made.ledger.close()
    resumed = federation(folder)
    resumed.clients.fault = lambda *_: None
    resumed.run(Retrain, 2)
    assert 0 not in resumed.clients.of_round(1)
    assert resumed.report(1).failed == whole.report(1).failed
    assert bits(resumed.weights(2)) == bits(whole.weights(2))


def test_another_failure_in_a_replay_is_an_error_and_not_another_result(tmp_path):
    first, second = (only(raising(OSError("lost")), client=k, rounds=[1]) for k in (0, 1))
    killed(tmp_path, after_failures, 1, Retrain, fault=first).ledger.close()
    resumed = federation(tmp_path)
    resumed.clients.fault = second
    with pytest.raises(
        RunError, match=r"round 1 is being repeated after an interruption, and clients \[1\] failed"
    ):
        resumed.run(Retrain, 2)


def test_a_ledger_that_lags_by_rounds_is_told_when_things_happened(tmp_path):
    """Put back from a copy of an earlier day, say: what has been unlearned is not unlearned again."""
    whole = run(within(tmp_path, "whole"), PUF)
    older = Ledger(":memory:")
    made = federation(tmp_path / "whole", older)
    made.run(PUF, ROUNDS + 1)
    assert [a.kind for a in made.clients.asked if a.round > ROUNDS] == [TRAIN] * 3
    for name in ("r1", "r2"):
        record, known = older.request("tiny", name), whole.progress(name)
        assert (record.state, record.ended_round) == (whole.ended["lives"][name][-1][0], known.ended_round)


# -- observers ---------------------------------------------------------------------------------------------


def test_the_initial_model_is_reported_once_as_round_0(tmp_path):
    made = run(tmp_path, Retrain)
    assert [r.round for r in made.reports] == list(range(ROUNDS + 1))
    assert made.report(0).plan.train == ()
    assert [r.round for r in run(tmp_path, Retrain).reports] == []


def test_a_round_is_reported_before_it_is_saved(tmp_path):
    """Else a round could be saved, and never reported."""
    made = killed(tmp_path, before_checkpoint, 3)
    assert made.reports[-1].round == 3
    assert made.checkpoints.rounds() == [1, 2]


def test_resuming_keeps_the_weights_dtype(tmp_path):
    made = federation(tmp_path)
    made.start = initial_state(dtype=torch.float64, buffers=True)
    made.run(PUF, 3)
    made.run(PUF, 4)
    assert made.weights(4).dtype == torch.float64
