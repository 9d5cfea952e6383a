"""No answer of a client poisons a live server: it is refused by name, and the honest ones go on."""

import logging
from dataclasses import replace

import pytest
import torch

from fedunlearn.deployment.server import Deployed
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.robust import Aggregation
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.live.nodes import Nodes
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.server.round import Needs
from fedunlearn.server.rounds import QuorumMissedError
from fedunlearn.strategies.base import UnlearningStrategy
from tests.federation.contributions import bits
from tests.live.living import Living
from tests.server.tiny import (
    NUM_CLIENTS,
    Clients,
    Federation,
    averaged,
    examples_of,
    initial_state,
    only,
    settings,
    update_of,
    with_examples,
    with_vector,
)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def both(*faults):
    """Return the fault of a client that does all of these to its answer."""

    def spoil(update, num_examples):
        for fault in faults:
            update, num_examples = fault(update, num_examples)
        return update, num_examples

    return spoil


HUGE = with_vector(lambda v: torch.full_like(v, 3e38))
"""Finite, and more than a sum of float32 can hold."""
ATTACKS = {
    "3e38": HUGE,
    "a million times": with_vector(lambda v: v * 1e6),
    "-50 times with 2^62 examples": both(with_vector(lambda v: v * -50), with_examples(2**62)),
    "-50 times": with_vector(lambda v: v * -50),
    "2^62 examples": with_examples(2**62),
    "2^31 examples": with_examples(2**31),
    "a million examples": with_examples(10**6),
}


@pytest.mark.parametrize("round", [1, 2])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_round_goes_on_as_if_it_had_not_answered(tmp_path, attack, round):
    living = Living(tmp_path, clients=Clients(only(ATTACKS[attack], client=4, rounds=[round]))).serve()
    assert list(living.report(round).failed) == [4]
    assert living.report(round).failed[4].startswith("refused: ")
    assert 4 not in living.report(round).losses
    before = initial_state().vector if round == 1 else living.weights(1)
    expected = averaged(before, round, [0, 1, 2, 3, 5])
    assert torch.allclose(living.weights(round).double(), expected, atol=1e-6)
    assert living.report(3).failed == {}, "honest again, it is counted again"


def test_it_is_refused_for_as_long_as_it_goes_on_and_the_others_are_not(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    living = Living(tmp_path, clients=Clients(only(HUGE, client=2)), rounds=5).serve()
    assert [list(living.report(t).failed) for t in range(1, 6)] == [[2]] * 5
    assert "client 2 failed, the round goes on: refused: update of norm" in caplog.text
    assert torch.isfinite(living.weights(5)).all()


@pytest.mark.parametrize("guard", [{}, {"enabled": False}])
def test_a_sum_that_would_overflow_is_never_saved(tmp_path, guard):
    """Whatever the guard: the sender is named, and the others are counted."""
    living = Living(tmp_path, clients=Clients(only(HUGE, client=4, rounds=[2])), guard=guard).serve()
    assert list(living.report(2).failed) == [4]
    assert torch.allclose(
        living.weights(2).double(), averaged(living.weights(1), 2, [0, 1, 2, 3, 5]), atol=1e-6
    )
    assert living.report(3).failed == {}


def test_where_everybody_is_hostile_the_quorum_is_missed_and_nothing_is_saved(tmp_path):
    living = Living(tmp_path, clients=Clients(lambda t, k, kind: HUGE if t == 2 else None), quorum=0.1)
    with pytest.raises(QuorumMissedError, match=r"client 0: refused: num-examples times its update"):
        living.serve()
    assert living.checkpoints.latest().round == 1


@pytest.mark.parametrize("quorum", [0.5, 1.0])
def test_in_a_deployment_without_requests_the_sender_is_named_too(quorum):
    """There is no guard; the run goes on by its quorum, or stops with the name."""
    federation = Federation(settings(quorum=quorum), Clients(only(HUGE, client=4, rounds=[2])))
    conduct = Deployed(Nodes(NUM_CLIENTS))
    if quorum == 1.0:
        with pytest.raises(QuorumMissedError, match="client 4: refused: num-examples times its update"):
            federation.run(UnlearningStrategy, 3, conduct=conduct)
        return
    federation.run(UnlearningStrategy, 3, conduct=conduct)
    assert list(federation.report(2).failed) == [4]
    expected = averaged(federation.weights(1), 2, [0, 1, 2, 3, 5])
    assert torch.allclose(federation.weights(2).double(), expected, atol=1e-6)


class Dividing(UnlearningStrategy):
    """A method whose step can become infinite by itself."""

    def combine(self, round):
        step = super().combine(round)
        return step / 0.0 if self.round == 1 else step  # round 2


def test_weights_that_a_method_makes_infinite_are_not_kept(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    living = Living(tmp_path).serve(Dividing)
    assert bits(living.weights(2)) == bits(living.weights(1))
    assert bits(living.weights(3)) != bits(living.weights(2))
    assert "round 2: the global model holds NaN or Inf" in caplog.text


def test_a_step_that_forgets_and_is_not_finite_is_refused_without_the_guard_too(tmp_path):
    def fault(round, client, kind):
        return HUGE if kind == FORGET else None

    living = Living(tmp_path, clients=Clients(fault), guard={"enabled": False})
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    assert living.ledger.requests(LIVE_BRANCH)[0].state == "refused"
    assert bits(living.weights(2)) == bits(living.weights(1))


def test_what_is_usual_survives_a_restart(tmp_path):
    """A server that takes over knows the counts and norms of before: nothing is to be gained by a crash."""
    Living(tmp_path, rounds=2).serve()
    doubled = with_examples(2 * examples_of(4) + 1)
    again = Living(tmp_path, clients=Clients(only(doubled, client=4)), rounds=4).serve()
    assert [list(again.report(t).failed) for t in (3, 4)] == [[4], [4]]
    assert "guard.max-growth" in again.report(3).failed[4]


class Killed(BaseException):
    """What no handler of ours may catch."""


def test_a_round_in_which_somebody_was_refused_is_repeated_to_the_same_bits(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    fault = only(ATTACKS["a million times"], client=4, rounds=[2])
    whole = Living(one, clients=Clients(fault)).serve()
    killed = Living(other, clients=Clients(fault))

    def die(report):
        if report.round == 2:
            raise Killed

    killed.on_report = die
    with pytest.raises(Killed):
        killed.serve()
    again = Living(other, ledger=killed.ledger).serve()
    assert again.clients.of_round(2) == [0, 1, 2, 3, 5], "who was refused is not asked again"
    for t in (2, 3):
        assert bits(again.weights(t)) == bits(whole.weights(t))
    assert again.checkpoints.load(3).meta == whole.checkpoints.load(3).meta


def test_an_honest_federation_is_not_touched(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    made = [Living(one), Living(other, guard={"enabled": False})]
    for living in made:
        living.at_round(1, lambda living=living: living.ask(2))
        living.serve()
    for t in (1, 2, 3):
        assert bits(made[0].weights(t)) == bits(made[1].weights(t))
    assert all(not r.failed for r in made[0].reports)


def test_who_measures_has_no_more_examples_than_who_trains(tmp_path):
    living = Living(tmp_path).serve()
    may = living.evaluation.too_many
    assert all(may(k, examples_of(k)) == "" for k in range(6))
    assert "guard.max-growth" in may(4, 2 * examples_of(4) + 1)
    assert "guard.max-examples" in may(77, 10**9), "nor who has not trained yet"
    (tmp_path / "off").mkdir()
    assert Living(tmp_path / "off", guard={"enabled": False}).serve().evaluation.too_many(4, 10**9) == ""


# -- refusing to be forgotten ------------------------------------------------------------------------------


def answering(spoil):
    """Let client 2 answer its own forgetting so."""
    return Clients(lambda round, client, kind: spoil if (client, kind) == (2, FORGET) else None)


@pytest.mark.parametrize("factor", [0.0, 1e-6])
def test_who_sends_nothing_to_forget_by_has_not_been_forgotten(tmp_path, factor):
    living = Living(tmp_path, clients=answering(with_vector(lambda v: v * factor)), rules={"deadline": 60})
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert (record.state, record.unlearned_round) == ("excluded", None)
    assert living.report(2).failed[2].startswith("refused: update of norm")
    assert bits(living.weights(2)) == bits(living.weights(1)), "and nobody else was negated either"


@pytest.mark.parametrize("claimed", [10**9, 1])
def test_who_claims_other_examples_when_it_is_forgotten_is_refused(tmp_path, claimed):
    """Together with others the step is a mean by examples: a huge number would leave the others remembered, a small
    one the client itself."""
    living = Living(tmp_path, clients=answering(with_examples(claimed)), rules={"deadline": 60})
    living.at_round(1, lambda: [living.ask(k) for k in (1, 2, 3)])
    living.serve()
    states = {r.clients: r.state for r in living.ledger.requests(LIVE_BRANCH)}
    assert states == {(1,): "forgotten", (2,): "excluded", (3,): "forgotten"}


def test_with_a_stored_update_nobody_has_to_be_asked(tmp_path):
    """Whoever answers with nothing counts as out of reach after three attempts: its last update stands in."""
    rules = {"offline": "stored", "store-updates": True}
    living = Living(tmp_path, clients=answering(with_vector(lambda v: v * 0)), rules=rules)
    living.at_round(1, lambda: living.ask(2))
    living.serve()
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert record.state == "forgotten"
    last = living.report(record.unlearned_round)
    assert last.plan.stored == {2: 1}
    assert FORGET not in {a.kind for a in living.clients.asked if a.round == record.unlearned_round}


# -- robust rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["trimmed-mean", "median", "krum", "multi-krum"])
def test_the_loop_takes_the_rule_in_place_of_the_mean(rule):
    chosen = Aggregation(rule)
    federation = Federation(settings(aggregation=chosen), start=initial_state(buffers=True))
    federation.run(UnlearningStrategy, 1)
    updates = [Contribution(k, examples_of(k), update_of(initial_state().vector, 1, k)) for k in range(6)]
    expected = chosen.sum_of(updates).step_from(initial_state().vector)
    assert bits(federation.weights(1)) == bits(expected)
    assert bits(federation.weights(1)) != bits(BlockSum.of(updates).step_from(initial_state().vector))


def test_in_a_simulation_too_a_rule_withstands_what_the_mean_does_not():
    fault = only(with_vector(lambda v: v * -1e6), client=3)
    made = {
        rule: Federation(settings(aggregation=Aggregation(rule)), Clients(fault)).run(UnlearningStrategy, 3)
        for rule in ("mean", "median")
    }
    assert float(made["mean"].weights(3).norm()) > 1e4
    assert float(made["median"].weights(3).norm()) < 10


def test_a_method_that_combines_single_updates_itself_takes_no_rule():
    class Own(UnlearningStrategy):
        @classmethod
        def needs(cls, method):
            return Needs(individual=True)

    with pytest.raises(
        ValueError, match='aggregation = "krum": must be "mean", as Own combines individual updates'
    ):
        Own(settings(aggregation=Aggregation("krum")))
    assert Own(settings()).needed.individual


def test_hostile_within_the_bounds_are_out_of_the_trimmed_mean(tmp_path):
    evil = with_vector(lambda v: v * -9)
    living = Living(
        tmp_path, clients=Clients(lambda t, k, kind: evil if k in (0, 5) and kind == TRAIN else None)
    )
    living.aggregation = Aggregation("trimmed-mean", 0.3)
    living.serve()
    honest = torch.stack([update_of(initial_state().vector, 1, k) for k in range(1, 5)])
    step = living.weights(1) - initial_state().vector
    assert (step >= honest.amin(0) - 1e-6).all() and (step <= honest.amax(0) + 1e-6).all()
    assert replace(living.aggregation, rule="mean").needs_individual is False
