"""Clients that fail: who is told, who goes on, and what is never half applied."""

from dataclasses import replace

import pytest
import torch

from fedunlearn.errors import DivergedError, OutOfMemoryError, RunError
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.payload import ModelState
from fedunlearn.parts import Part, Parts
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.request_queue import Docket
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.strategies.local_routine import LocalRoutine
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.server.tiny import (
    Clients,
    Federation,
    averaged,
    initial_state,
    only,
    raising,
    settings,
    with_buffers,
    with_examples,
    with_vector,
)

TOLERANT = settings(quorum=0.5)
EVERYONE = range(6)


def federation(fault=None, *, dtype=torch.float64, buffers=False, **changes):
    clients = Clients() if fault is None else Clients(fault)
    changes.setdefault("settings", TOLERANT)
    return Federation(clients=clients, start=initial_state(dtype=dtype, buffers=buffers), **changes)


# -- a retained client -----------------------------------------------------------------------------------


def test_the_round_goes_on_without_a_failed_client_and_the_failure_is_on_record():
    ran = federation(only(raising(ZeroDivisionError("flat battery")), client=2, rounds=[2]))
    ran.run(Retrain, 3)
    w = averaged(ran.start.vector, 1, EVERYONE)
    w = averaged(averaged(w, 2, [0, 1, 3, 4, 5]), 3, EVERYONE)
    assert torch.allclose(ran.weights(3), w, rtol=0, atol=1e-13)
    (why,) = ran.report(2).failed.values()
    assert "Traceback" in why
    assert "ZeroDivisionError: flat battery" in why
    assert ran.ledger.plan("tiny", 2).failed == ran.report(2).failed == {2: why}
    assert ran.report(3).failed == {}, "it is asked again in the next round"
    assert sorted(ran.report(2).losses) == [0, 1, 3, 4, 5]


def test_a_failed_client_changes_no_bit_of_the_others_sum():
    failing = federation(only(raising(OSError()), client=2), dtype=torch.float32).run(Retrain, 1)
    absent = federation(dtype=torch.float32).run(Retrain, 1, excluded=[2])
    assert bits(failing.weights(1)) == bits(absent.weights(1))


def test_a_missed_quorum_stops_the_run_with_client_and_traceback(tmp_path):
    checkpoints = Checkpoints(tmp_path, "tiny")
    made = federation(
        only(raising(ZeroDivisionError("flat battery")), client=2, rounds=[2]),
        settings=settings(quorum=1.0),
        checkpoints=checkpoints,
    )
    with pytest.raises(RunError) as caught:
        made.run(Retrain, 3)
    text = str(caught.value)
    assert "round 2: 1 of 6 clients failed (2), federation.quorum = 1 does not allow that; client 2: " in text
    assert 'File "' in text and "ZeroDivisionError: flat battery" in text
    assert checkpoints.rounds() == [1], "nothing of the round is kept"
    assert 2 not in made.states


def test_after_a_missed_quorum_the_round_is_asked_again_as_planned(tmp_path):
    """The user mends the client and resumes; nothing was recorded against it."""
    made = federation(
        only(raising(OSError()), client=2, rounds=[2]),
        settings=settings(quorum=1.0),
        checkpoints=Checkpoints(tmp_path, "tiny"),
    )
    with pytest.raises(RunError):
        made.run(Retrain, 3)
    made.clients.fault = lambda round, client, kind: None
    made.run(Retrain, 3)
    sound = federation().run(Retrain, 3)
    assert bits(made.weights(3)) == bits(sound.weights(3))


def test_when_everybody_fails_the_run_stops_whatever_the_quorum():
    made = federation(lambda *_: raising(OSError("no network")), settings=settings(quorum=0.01))
    with pytest.raises(RunError, match=r"6 of 6 clients failed \(0, 1, 2, 3, 4, 5\).*client 0: "):
        made.run(Retrain, 1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
@pytest.mark.parametrize("forgetting", [False, True])
def test_a_client_without_memory_stops_the_run_whatever_the_quorum(error, forgetting, tmp_path):
    """The same settings would fail again, and nothing is held against the client: another batch size will do."""
    made = federation(only(raising(error), client=2, rounds=[2]), checkpoints=Checkpoints(tmp_path, "tiny"))
    if forgetting:
        made.submit("r", [2], 1)
    with pytest.raises(OutOfMemoryError, match=r"^client 2, round 2: out of memory$"):
        made.run(PUF, 3, mode="special", scale=2.0)
    assert made.checkpoints.rounds() == [1]
    assert made.ledger.plan("tiny", 2).failed == {}


@pytest.mark.parametrize(
    ("num_clients", "quorum", "failing", "goes_on"),
    [(6, 0.5, 3, True), (6, 0.5, 4, False), (25, 0.56, 11, True), (25, 0.56, 12, False), (6, 1.0, 0, True)],
)
def test_the_quorum_is_a_share_of_those_asked(num_clients, quorum, failing, goes_on):
    made = federation(
        lambda round, client, kind: raising(OSError()) if client < failing else None,
        settings=settings(num_clients=num_clients, quorum=quorum),
    )
    if goes_on:
        assert len(made.run(Retrain, 1).report(1).failed) == failing
    else:
        with pytest.raises(RunError, match=f"{failing} of {num_clients} clients failed"):
            made.run(Retrain, 1)


# -- answers that are refused ----------------------------------------------------------------------------


def setting(place, value):
    def change(vector):
        changed = vector.clone()
        changed[place] = value
        return changed

    return change


def buffer_with(name, value):
    return with_buffers(lambda buffers: {**buffers, name: value})


INF, NAN = float("inf"), float("nan")
SPOILT = {
    "NaN": (with_vector(setting(3, NAN)), "update holds NaN or Inf"),
    "Inf": (with_vector(setting(0, INF)), "update holds NaN or Inf"),
    "-Inf": (with_vector(setting(4, -INF)), "update holds NaN or Inf"),
    "Inf beside -Inf": (
        with_vector(lambda v: setting(4, -INF)(setting(0, INF)(v))),
        "update holds NaN or Inf",
    ),
    "too short": (with_vector(lambda v: v[:-1]), r"update of shape (4,), the model's is (5,)"),
    "a matrix": (with_vector(lambda v: v[None]), r"update of shape (1, 5), the model's is (5,)"),
    "another dtype": (
        with_vector(lambda v: v.half()),
        "update of torch.float16, the model's is torch.float64",
    ),
    "no examples": (with_examples(0), "num-examples = 0, must be at least 1"),
    "negative examples": (with_examples(-3), "num-examples = -3, must be at least 1"),
    "half an example": (with_examples(0.5), "num-examples = 0.5, must be a whole number"),
    "no buffers": (with_buffers(lambda _: {}), "buffers [], the model's are ['batches', 'mean', 'variance']"),
    "NaN buffer": (buffer_with("mean", torch.tensor([0.0, NAN]).double()), "buffer mean holds NaN or Inf"),
    "short buffer": (buffer_with("mean", torch.zeros(1).double()), "buffer mean of shape (1,)"),
    "other buffer": (buffer_with("mean", torch.zeros(2)), "buffer mean of shape (2,) and torch.float32"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_answer_is_refused_by_client_number(name):
    fault, why = SPOILT[name]
    ran = federation(only(fault, client=4), buffers=True).run(Retrain, 1)
    absent = federation(buffers=True).run(Retrain, 1, excluded=[4])
    (client, reason), *others = ran.report(1).failed.items()
    assert (client, others) == (4, [])
    assert reason.startswith("refused: ")
    assert why in reason
    assert bits(ran.weights(1)) == bits(absent.weights(1))
    for buffer, value in absent.states[1].buffers.items():
        assert bits(ran.states[1].buffers[buffer]) == bits(value)


@pytest.mark.parametrize("name", SPOILT)
def test_a_refusal_counts_against_the_quorum(name):
    made = federation(only(SPOILT[name][0], client=4), buffers=True, settings=settings(quorum=1.0))
    with pytest.raises(RunError, match=r"1 of 6 clients failed \(4\).*client 4: refused: "):
        made.run(Retrain, 1)


def test_a_large_update_is_no_infinite_one():
    """Its sum overflows, its entries do not."""
    huge = torch.full((5,), 1e38)
    assert huge.sum() == INF
    ran = federation(only(lambda update, _: (ModelState(huge), 1), client=4), dtype=torch.float32)
    ran.run(Retrain, 1)
    assert ran.report(1).failed == {}
    assert torch.isfinite(ran.weights(1)).all()


# -- a client with nothing left ------------------------------------------------------------------------------


def test_a_client_without_rows_counts_for_nothing_and_no_other_is_lost():
    """All its data have been forgotten as a part: it answers with none, and those after it are in the sum."""
    parts = Parts([Part(6, 2, 1.0)])
    nothing = only(with_examples(0), client=2, rounds=range(3, 100))
    made = federation(nothing, settings=settings(parts=parts))
    made.submit("r1", (6,), 1)
    made.run(PUF, 4)
    assert made.clients.of_round(3, TRAIN) == list(EVERYONE)
    assert made.report(3).failed == {}
    assert sorted(made.report(3).losses) == [0, 1, 3, 4, 5]
    w = averaged(averaged(made.weights(2), 3, [0, 1, 3, 4, 5]), 4, [0, 1, 3, 4, 5])
    assert torch.allclose(made.weights(4), w, rtol=0, atol=1e-13)


# -- a client that is to forget --------------------------------------------------------------------------


def forgetting(fault=None, *, requests=(("r1", (2,)), ("r2", (4, 5))), at_round=1, **changes):
    made = federation(fault, **changes)
    for name, clients in requests:
        made.submit(name, clients, at_round)
    return made


@pytest.mark.parametrize("mode", ["special", "regular"])
@pytest.mark.parametrize("fault", [raising(OSError()), with_vector(setting(1, NAN)), with_examples(0)])
def test_a_failing_forgetting_client_holds_the_whole_set_for_the_next_round(mode, fault):
    ran = forgetting(only(fault, client=4, rounds=[2])).run(PUF, 3, mode=mode, scale=3.0)
    first = averaged(ran.start.vector, 1, EVERYONE)
    retained = [0, 1, 3]
    held = averaged(first, 2, retained) if mode == "regular" else first
    assert torch.allclose(ran.weights(2), held, rtol=0, atol=1e-13), (
        "nothing of U, not even the part there is"
    )
    assert ran.report(2).coefficients == {}
    assert ran.clients.of_round(3, FORGET) == [2, 4, 5], "all of them again, together"
    assert (ran.progress("r1").unlearned_round, ran.progress("r2").unlearned_round) == (3, 3)
    assert (ran.progress("r1").attempts, ran.progress("r2").attempts) == (1, 1)
    assert (
        ran.life("r1")[:6]
        == ran.life("r2")[:6]
        == [
            ("received", 1),
            ("scheduled", 2),
            ("unlearning", 2),
            ("waiting", 2),
            ("scheduled", 3),
            ("unlearning", 3),
        ]
    )
    sound = forgetting(at_round=2).run(PUF, 3, mode=mode, scale=3.0)
    assert ran.report(3).coefficients == sound.report(3).coefficients


def test_a_held_set_is_not_trained_on_either():
    ran = forgetting(only(raising(OSError()), client=4, rounds=[2, 3])).run(PUF, 5, mode="regular")
    for t in (2, 3, 4, 5):
        assert set(ran.clients.of_round(t, TRAIN)).isdisjoint({2, 4, 5})


def test_a_request_that_joins_a_held_set_shares_its_next_attempt():
    made = forgetting(only(raising(OSError()), client=4, rounds=[2]))
    made.submit("late", (0,), 2)
    made.run(PUF, 3)
    assert made.clients.of_round(3, FORGET) == [0, 2, 4, 5]
    assert made.report(3).plan.requests == ("r1", "r2", "late")


def test_a_request_fails_after_its_attempts_and_the_others_are_served():
    """One client that is never there must not take the requests of others down with it."""
    ran = forgetting(only(raising(OSError()), client=4)).run(PUF, 6)
    assert [ran.clients.of_round(t, FORGET) for t in (2, 3, 4, 5, 6)] == [
        [2, 4, 5],
        [2, 4, 5],
        [2, 4, 5],
        [2],
        [],
    ]
    failed, served = ran.progress("r2"), ran.progress("r1")
    assert (failed.outcome, failed.ended_round, failed.unlearned_round) == ("failed", 4, None)
    assert (served.outcome, served.unlearned_round) == (None, 5)
    assert (failed.attempts, failed.unanswered) == (3, 3)
    assert (served.attempts, served.unanswered) == (3, 0)
    assert ran.life("r2")[-2:] == [("unlearning", 4), ("failed", 4)]
    assert ran.life("r1")[-1] == ("recovering", 5)
    assert ran.clients.of_round(6) == [0, 1, 3], "who asked to be forgotten is not trained on"


def test_the_only_client_to_forget_may_be_away_for_a_while_whatever_the_quorum():
    """Quorum is about whom the model is averaged over; a client to forget is waited for."""
    away = only(raising(OSError()), client=2, rounds=[2, 3])
    ran = forgetting(away, requests=(("r1", (2,)),), settings=settings(quorum=1.0)).run(PUF, 5)
    assert [ran.clients.of_round(t, FORGET) for t in (2, 3, 4, 5)] == [[2], [2], [2], []]
    assert ran.progress("r1").unlearned_round == 4
    assert torch.equal(ran.weights(3), ran.weights(1)), "a special round without its client changes nothing"
    assert not torch.equal(ran.weights(4), ran.weights(3))


def test_the_attempts_are_counted_across_a_restart(tmp_path):
    made = forgetting(
        only(raising(OSError()), client=4),
        settings=settings(quorum=0.5, max_attempts=2),
        checkpoints=Checkpoints(tmp_path, "tiny"),
    )
    made.run(PUF, 2)
    assert made.progress("r2").attempts == 1
    made.run(PUF, 3)
    assert (made.progress("r2").outcome, made.progress("r2").ended_round) == ("failed", 3)


def test_leaving_out_needs_no_answer_from_who_is_left_out():
    ran = forgetting(only(raising(OSError()), client=4, rounds=range(2, 100))).run(Natural, 3)
    assert ran.report(2).failed == {}
    assert ran.life("r2")[-1] == ("excluded", 2)


def test_a_failing_retained_client_does_not_hold_the_forgetting():
    ran = forgetting(only(raising(OSError()), client=0, rounds=[2])).run(PUF, 2, mode="regular")
    assert ran.progress("r1").unlearned_round == 2
    assert set(ran.report(2).coefficients) == {2, 4, 5}


def test_a_failed_client_that_is_retained_with_other_data_counts_once():
    """In both lists of a plan, a client is one client of the quorum."""

    class Both(PUF):
        def plan(self, situation):
            return replace(super().plan(situation), train=tuple(range(6)))

    made = forgetting(
        only(raising(OSError()), client=2, rounds=[2]),
        requests=[("r1", (2,))],
        settings=settings(quorum=5 / 6),
    )
    made.run(Both, 2, mode="regular")
    assert list(made.report(2).failed) == [2]
    assert made.progress("r1").attempts == 1


# -- weights that are no numbers ------------------------------------------------------------------------------


def test_a_model_that_overflows_when_sound_updates_are_combined_has_diverged():
    with pytest.raises(DivergedError, match=r"^round 2: diverged, the global model holds NaN or Inf"):
        forgetting(dtype=torch.float32).run(PUF, 3, mode="regular", scale=3e38)


def test_so_has_a_routine_whose_result_is_no_numbers():
    made = forgetting(only(with_vector(setting(1, NAN)), client=4, rounds=[2]))
    with pytest.raises(DivergedError, match=r"^round 2: diverged, the routine's result holds NaN"):
        made.run(LocalRoutine, 3, routine="fine-tune")
    assert made.life("r1")[-1] == ("unlearning", 2), "to be resumed, or ended by whoever catches it"


def test_of_clients_that_train_too_few_sound_ones_are_no_round():
    made = federation(only(with_vector(setting(1, NAN)), client=4), settings=settings(quorum=0.8))
    made.run(UnlearningStrategy, 2)
    assert made.report(2).failed.keys() == {4}
    made = federation(only(with_vector(setting(1, NAN)), client=4), settings=settings(quorum=1.0))
    with pytest.raises(
        DivergedError, match=r"1 of 6 clients failed \(4\).*NaN or Inf; try a smaller learning rate"
    ):
        made.run(UnlearningStrategy, 2)


def test_who_fails_only_when_a_round_is_repeated_is_named_in_order():
    docket = Docket(Ledger(":memory:"), "b", forgets=True, max_attempts=1, num_clients=9)
    failed = {2: "lost", 8: "gone", 1: "not finite"}
    with pytest.raises(RunError, match=r"clients \[1, 8\] failed .* Client 1: not finite$"):
        docket.record_failures(RoundPlan(3, (1, 2, 8)), {2: "lost"}, failed)
