"""When a strategy is asked for its jobs, what it may not return, and whose tensors reach it."""

import pytest
import torch

from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.server.history import Keeps
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.round import Needs
from fedunlearn.strategies.base import UnlearningStrategy
from tests.server.tiny import NUM_CLIENTS, Federation, extra_of, only, raising, settings, update_of

ROUTINE = Chosen.of("fine-tune", {})


class Asking(UnlearningStrategy):
    """Asks everybody for a tensor, and notes what it is asked itself and what it gets."""

    asks = True

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, situation.sample(3), situation.to_forget, asks=self.asks)

    def job(self, start, kind):
        noted.append((start.plan.round, kind))
        return Job(ROUTINE, returns={"head": 2})

    def combine(self, round):
        received[round.plan.round] = {k: dict(extras) for k, extras in round.extras.items()}
        return round.fedavg()


noted: list[tuple[int, str]] = []
received: dict[int, dict[int, dict[str, torch.Tensor]]] = {}


@pytest.fixture(autouse=True)
def _nothing_yet():
    noted.clear()
    received.clear()


def test_each_kind_that_takes_part_is_asked_for_once_and_its_tensors_arrive():
    run = Federation()
    run.submit("r", [2], 1)
    run.run(Asking, 3)
    assert noted == [(1, TRAIN), (2, TRAIN), (2, FORGET), (3, TRAIN)]
    train = run.report(2).plan.train
    assert list(received[2]) == sorted([*train, 2])
    for round, found in received.items():
        for client, extras in found.items():
            assert torch.equal(extras["head"], extra_of(2, round, client))


def test_of_a_method_that_asks_nobody_nobody_s_job_is_asked_for():
    class Silent(Asking):
        asks = False

    run = Federation()
    run.submit("r", [2], 1)
    run.run(Silent, 2)
    assert noted == [(1, TRAIN), (2, TRAIN)]


def test_where_forgetting_waits_the_tensors_of_those_to_forget_wait_with_it():
    run = Federation(settings(quorum=0.5, max_attempts=9))
    run.clients.fault = only(raising(RuntimeError("lost")), client=4)
    run.submit("r", [2, 4], 1)
    run.run(Asking, 2)
    assert list(received[2]) == list(run.report(2).plan.train)


@pytest.mark.parametrize("start", [torch.zeros(4), torch.zeros(5, dtype=torch.float64)])
def test_a_start_that_is_not_of_the_model_is_a_mistake_of_the_method_s(start):
    class Wrong(Asking):
        def job(self, start_of_round, kind):
            return Job(start=start)

    with pytest.raises(
        ValueError, match=r"^Wrong\.job: start of shape .*, the weights are of \(5,\) and torch"
    ):
        Federation().run(Wrong, 1)


def test_the_weights_that_history_keeps_are_those_that_a_client_came_to_wherever_it_started():
    class Ahead(UnlearningStrategy):
        @classmethod
        def needs(cls, method):
            return Needs(keeps=Keeps(what="weights"))

        def job(self, start, kind):
            return Job(start=start.w + 1)

    run = Federation().run(Ahead, 1)
    start = run.weights(0) + 1
    for client in range(NUM_CLIENTS):
        kept = run.strategy.history.result(1, client).delta
        assert torch.equal(kept, start + update_of(start, 1, client))
