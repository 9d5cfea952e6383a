"""A round costs what it samples: planned here among a billion clients, of whom no array could be made for long."""

import pytest

from fedunlearn.federation.local import LocalGrid
from fedunlearn.requests import Ledger
from fedunlearn.server.messages import find_clients
from fedunlearn.server.plan import Situation
from fedunlearn.server.request_queue import Docket
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.server.tiny import settings

BILLION = 10**9
SLOTS = 100


@pytest.mark.parametrize("strategy", [Natural, PUF, Retrain])
def test_planning_and_committing_a_round(strategy):
    method = strategy(settings(num_clients=BILLION), **({"excluded": [5, 7]} if strategy is Retrain else {}))
    with Ledger(":memory:") as ledger:
        docket = Docket(ledger, "branch", forgets=strategy is PUF, max_attempts=3, num_clients=BILLION)
        ledger.submit("branch", request_id="r", clients=(3, BILLION - 1), at_round=2)
        plans = []
        for round in range(1, 6):
            plan, _ = docket.plan(
                round,
                lambda to_forget, gone, step, round=round: method.plan(
                    Situation(round, BILLION, SLOTS, gone, to_forget, seed=1)
                ),
            )
            docket.begin(plan)
            docket.apply(plan, {})
            plans.append(plan)
        stored = [len(str(record.plan)) for record in ledger.plans("branch")]
    special = strategy is PUF
    assert [len(plan.train) for plan in plans] == [SLOTS, SLOTS, 0 if special else SLOTS, SLOTS, SLOTS]
    assert [plan.forget for plan in plans] == [(), (), (3, BILLION - 1) if special else (), (), ()]
    assert len({k for plan in plans for k in plan.train}) > (380 if special else 480), "hardly anybody twice"
    assert max(stored) < 15 * SLOTS + 200


def test_finding_the_node_of_a_client():
    with LocalGrid(lambda message, context: message, BILLION) as grid:
        nodes = find_clients(grid)
        assert len(nodes) == BILLION
        assert nodes[BILLION - 1] - nodes[0] == BILLION - 1
        assert BILLION not in nodes
