"""Rounds that an engine trains without messages: the same rules as with them."""

import pytest
import torch

from fedunlearn.errors import OutOfMemoryError, RunError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.server.hooks import Conduct
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.strategies.puf import PUF
from tests.federation.contributions import bits
from tests.federation.scripted_routine import ScriptedRoutine, examples_of, start_state, trained
from tests.server.tiny import NUM_CLIENTS, Federation, settings


def federation(faults=None, **changes):
    """Return a federation whose grid trains directly; a message to a client is a mistake."""
    grid = LocalGrid(None, NUM_CLIENTS, routine=lambda: ScriptedRoutine(faults or {}))
    return Federation(settings(**changes), grid=grid, start=start_state())


def mean_update(w, round, clients):
    total = sum(map(examples_of, clients))
    return sum(examples_of(k) / total * (trained(w, k, round) - w).double() for k in clients)


def test_rounds_are_federated_averaging():
    run = federation().run(UnlearningStrategy, 2)
    for round in (1, 2):
        w = run.weights(round - 1)
        expected = w.double() + mean_update(w, round, range(NUM_CLIENTS))
        torch.testing.assert_close(run.weights(round).double(), expected, rtol=0, atol=1e-6)
    assert run.report(1).losses == {k: 1 / (1 + k) for k in range(NUM_CLIENTS)}


def test_puf_negates_what_the_forgotten_client_alone_answers():
    run = federation()
    run.submit("r", [2], 1)
    run.run(PUF, 3, scale=2.0)
    w = run.weights(1)
    expected = w.double() - 2 * (trained(w, 2, 2) - w).double()
    torch.testing.assert_close(run.weights(2).double(), expected, rtol=0, atol=1e-6)
    others = [k for k in range(NUM_CLIENTS) if k != 2]
    w = run.weights(2)
    torch.testing.assert_close(
        run.weights(3).double(), w.double() + mean_update(w, 3, others), rtol=0, atol=1e-6
    )
    assert run.report(2).coefficients == {2: 2.0}


def test_too_few_answers_stop_the_run_with_the_clients_own_words():
    with pytest.raises(RunError, match=r"(?s)1 of 6 clients failed \(4\).*client 4 is on fire"):
        federation({4: "raise"}).run(UnlearningStrategy, 1)


def test_where_the_quorum_holds_the_failed_client_is_recorded_and_left_out():
    run = federation({4: "nan"}, quorum=0.5).run(UnlearningStrategy, 1)
    assert run.report(1).failed == {4: "refused: update holds NaN or Inf"}
    w = run.weights(0)
    expected = w.double() + mean_update(w, 1, [0, 1, 2, 3, 5])
    torch.testing.assert_close(run.weights(1).double(), expected, rtol=0, atol=1e-6)


def test_a_client_without_memory_ends_the_run_unless_whoever_conducts_it_tolerates_that():
    class Tolerant(Conduct):
        tolerant = True

    with pytest.raises(OutOfMemoryError):
        federation({4: "memory"}, quorum=0.5).run(UnlearningStrategy, 1)
    run = federation({4: "memory"}, quorum=0.5).run(UnlearningStrategy, 1, conduct=Tolerant())
    assert list(run.report(1).failed) == [4]


def test_forgetting_waits_whole_where_one_of_its_clients_fails():
    run = federation({4: "raise"}, quorum=0.5, max_attempts=9)
    run.submit("r", [2, 4], 1)
    run.run(PUF, 2)
    assert bits(run.weights(2)) == bits(run.weights(1)), "nothing is half applied"
    assert run.progress("r").unlearned_round is None


@pytest.mark.parametrize("verb", ["configure_train", "aggregate_train"])
def test_a_strategy_with_messages_of_its_own_is_refused_when_it_is_written(verb):
    """Nobody would call the method: better no strategy than one that does something else than it says."""
    with pytest.raises(TypeError, match=rf"^Doubling\.{verb} would never be called: .* job\(\)"):
        type("Doubling", (UnlearningStrategy,), {verb: lambda self, *_: None})
