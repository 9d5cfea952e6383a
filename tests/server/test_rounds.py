"""What happens in each round of a whole federation: who is asked what, and what becomes of the weights."""

import pytest
import torch
from flwr.app import MetricRecord

from fedunlearn.errors import ConfigError
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import pack, unpack
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.server.tiny import (
    NUM_CLIENTS,
    Federation,
    averaged,
    examples_of,
    initial_state,
    settings,
    update_of,
)

EVERYONE = list(range(NUM_CLIENTS))
RETAINED = [0, 1, 3, 4, 5]


def federation(**changes):
    """A federation in double precision, to be compared with plain arithmetic."""
    return Federation(start=initial_state(dtype=torch.float64), **changes)


def close(a, b):
    return torch.allclose(a, b.double(), rtol=0, atol=1e-13)


def forgetting_two(*, at_round=2, clients=(2,), **changes):
    """A federation in which client 2 asks to be forgotten once round 2 is complete."""
    made = federation(**changes)
    made.submit("r1", clients, at_round)
    return made


def test_federated_averaging_is_the_weighted_mean():
    ran = federation().run(Retrain, 3)
    w = ran.start.vector
    for t in (1, 2, 3):
        w = averaged(w, t, EVERYONE)
        assert close(ran.weights(t), w)
        assert ran.clients.of_round(t, TRAIN) == EVERYONE


def test_special_negates_in_a_round_of_its_own_and_then_recovers_without_the_client():
    ran = forgetting_two().run(PUF, 5, mode="special", scale=2.0)
    assert [ran.clients.of_round(t, TRAIN) for t in range(1, 6)] == [
        EVERYONE,
        EVERYONE,
        [],
        RETAINED,
        RETAINED,
    ]
    assert [ran.clients.of_round(t, FORGET) for t in range(1, 6)] == [[], [], [2], [], []]
    w = averaged(averaged(ran.start.vector, 1, EVERYONE), 2, EVERYONE)
    w = w - 2.0 * update_of(w, 3, 2)
    assert close(ran.weights(3), w)
    w = averaged(averaged(w, 4, RETAINED), 5, RETAINED)
    assert close(ran.weights(5), w)


def test_regular_negates_beside_the_retained_clients():
    ran = forgetting_two().run(PUF, 3, mode="regular", scale=20.0)
    assert ran.clients.of_round(3, TRAIN) == RETAINED
    assert ran.clients.of_round(3, FORGET) == [2]
    w = averaged(averaged(ran.start.vector, 1, EVERYONE), 2, EVERYONE)
    total = sum(map(examples_of, EVERYONE))
    step = sum(examples_of(k) * update_of(w, 3, k) for k in RETAINED)
    step = step - 20.0 * examples_of(2) * update_of(w, 3, 2)
    assert close(ran.weights(3), w + step / total)


def test_natural_goes_on_without_the_client_and_negates_nothing():
    ran = forgetting_two().run(Natural, 4)
    assert [ran.clients.of_round(t, TRAIN) for t in (2, 3, 4)] == [EVERYONE, RETAINED, RETAINED]
    assert not [asked for asked in ran.clients.asked if asked.kind == FORGET]
    w = averaged(averaged(ran.start.vector, 1, EVERYONE), 2, EVERYONE)
    assert close(ran.weights(4), averaged(averaged(w, 3, RETAINED), 4, RETAINED))


def test_retraining_never_sees_the_client():
    ran = federation().run(Retrain, 3, excluded=[2])
    w = ran.start.vector
    for t in (1, 2, 3):
        assert ran.clients.of_round(t) == RETAINED
        w = averaged(w, t, RETAINED)
    assert close(ran.weights(3), w)


@pytest.mark.parametrize("mode", ["special", "regular"])
def test_requests_of_one_round_are_forgotten_together(mode):
    ran = federation()
    ran.submit("r1", (4, 2), 1)
    ran.submit("r2", (0,), 1)
    ran.run(PUF, 3, mode=mode, scale=2.0)
    assert ran.clients.of_round(2, FORGET) == [0, 2, 4]
    assert ran.report(2).plan.requests == ("r1", "r2")
    assert ran.clients.of_round(3) == [1, 3, 5]
    w = averaged(ran.start.vector, 1, EVERYONE)
    retained = [1, 3, 5] if mode == "regular" else []
    total = sum(map(examples_of, [0, 2, 4, *retained]))
    step = sum((examples_of(k) * update_of(w, 2, k) for k in retained), torch.zeros_like(w))
    step = step - 2.0 * sum(examples_of(k) * update_of(w, 2, k) for k in (0, 2, 4))
    assert close(ran.weights(2), w + step / total)


def test_the_learning_rate_goes_on_through_unlearning_and_recovery():
    ran = forgetting_two().run(PUF, 6, mode="special")
    rates = {asked.round: asked.lr for asked in ran.clients.asked}
    assert rates == {t: 0.8 * 0.5 ** (t - 1) for t in range(1, 7)}
    assert {asked.seed for asked in ran.clients.asked} == {7}


def test_a_fork_takes_up_schedule_and_sampling_where_the_original_is():
    few = settings(participation=0.5)
    original = federation(settings=few).run(Retrain, 6)
    fork = Federation(settings=few, start=original.states[3]).run(Retrain, 6, first_round=3)
    assert fork.clients.asked == [a for a in original.clients.asked if a.round > 3]
    assert bits(fork.weights(6)) == bits(original.weights(6))
    assert sorted(r.round for r in fork.reports) == [4, 5, 6]


@pytest.mark.parametrize("kind", [PUF, Natural])
def test_a_forgotten_client_is_never_asked_again(kind):
    ran = forgetting_two(clients=(2, 5), settings=settings(participation=0.5)).run(kind, 40)
    before = {a.client for a in ran.clients.asked if a.round <= 2}
    after = {a.client for a in ran.clients.asked if a.round > 3}
    assert before & {2, 5}, "they had a part in it"
    assert after == {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("participation", "clients", "retained"),
    [(1.0, (1, 2), 4), (0.5, (1, 2), 1), (0.5, (1, 2, 3), 0), (1 / 6, (1, 2, 3), 0)],
)
def test_regular_keeps_to_the_slots_of_a_round(participation, clients, retained):
    ran = forgetting_two(clients=clients, settings=settings(participation=participation))
    ran.run(PUF, 3, mode="regular")
    assert ran.clients.of_round(3, FORGET) == list(clients)
    trained = ran.clients.of_round(3, TRAIN)
    assert len(trained) == retained
    assert set(trained).isdisjoint(clients)


def test_regular_with_every_slot_forgotten_is_special():
    few = settings(participation=0.5)
    regular = forgetting_two(clients=(1, 2, 3), settings=few).run(PUF, 3, mode="regular", scale=2.0)
    special = forgetting_two(clients=(1, 2, 3), settings=few).run(PUF, 3, mode="special", scale=2.0)
    assert close(regular.weights(3), special.weights(3))


def test_the_user_sees_the_effective_coefficients():
    special = forgetting_two(clients=(2, 4)).run(PUF, 3, mode="special", scale=2.0)
    regular = forgetting_two(clients=(2, 4)).run(PUF, 3, mode="regular", scale=20.0)
    forgotten, everyone = sum(map(examples_of, (2, 4))), sum(map(examples_of, EVERYONE))
    assert special.report(3).coefficients == {k: 2.0 * examples_of(k) / forgotten for k in (2, 4)}
    assert regular.report(3).coefficients == {k: 20.0 * examples_of(k) / everyone for k in (2, 4)}
    assert special.report(2).coefficients == regular.report(2).coefficients == {}


def test_a_round_is_reported_with_what_its_clients_said():
    ran = federation(measure=lambda t, _: {"test-accuracy": 10.0 * t}).run(Retrain, 2)
    report = ran.report(2)
    assert report.plan.train == tuple(EVERYONE)
    assert report.losses == {k: 1 / (1 + k) for k in EVERYONE}
    assert report.metrics == {"test-accuracy": 20.0}
    assert report.failed == {}
    assert report.seconds >= 0


def test_flower_s_result_holds_the_last_weights_and_the_histories():
    ran = federation()
    result = Retrain(ran.settings).start(
        LocalGrid(ran.clients.app, NUM_CLIENTS),
        pack(ran.start),
        num_rounds=2,
        evaluate_fn=lambda t, _: MetricRecord({"x": float(t)}),
    )
    w = averaged(averaged(ran.start.vector, 1, EVERYONE), 2, EVERYONE)
    assert close(unpack(result.arrays).vector, w)
    assert {t: dict(m) for t, m in result.evaluate_metrics_serverapp.items()} == {
        1: {"x": 1.0},
        2: {"x": 2.0},
    }
    loss = sum(1 / (1 + k) for k in EVERYONE) / NUM_CLIENTS
    assert result.train_metrics_clientapp[2]["train-loss"] == pytest.approx(loss)


def test_a_live_request_is_served_in_the_next_round():
    ran = Federation()

    def measure(round, _):
        if round == 2:
            ran.submit("live", (3,), None)
        return {}

    ran.measure = measure
    ran.run(PUF, 4)
    assert ran.clients.of_round(3, FORGET) == [3]
    assert (ran.progress("live").at_round, ran.progress("live").unlearned_round) == (2, 3)
    assert 3 not in ran.clients.of_round(4)


def test_of_several_clients_that_are_none_the_smallest_is_named():
    with pytest.raises(ConfigError, match=r"there is no client 9; clients are numbered 0 to 5$"):
        federation().run(Retrain, 1, excluded=[16, 9])
